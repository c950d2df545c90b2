"""Calibration with and without a temperature, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from iwlora_study.runner.collecting import log_loss, temperature, with_temperature


def test_temperature_undoes_a_scaling_of_the_logits() -> None:
    """Labels are drawn from softmax(logits), predictions are softmax(4 logits): T is about 4."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    true = softmax(logits, axis=1)
    labels = np.array([rng.choice(3, p=row) for row in true])
    overconfident = softmax(4 * logits, axis=1)
    chosen = temperature(overconfident, labels)
    assert chosen == pytest.approx(4.0, rel=0.08)
    rescaled = with_temperature(overconfident, chosen)
    assert log_loss(rescaled, labels) < log_loss(overconfident, labels)
    np.testing.assert_allclose(with_temperature(overconfident, 4.0), true, atol=1e-6)
