"""Correlations against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from iwlora.tasks.metrics.regression import pearson, spearman

pytestmark = pytest.mark.quick


def test_correlations() -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 6, 50).astype(float)
    y = x + draw.normal(size=50)
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranks = [np.array([(v > z).sum() + ((v == z).sum() + 1) / 2 for v in z]) for z in (x, y)]
    assert spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert pearson(x, np.ones(50)) == spearman(np.ones(50), y) == 0.0
