"""The expected calibration error against its definition, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from iwlora.compare.statistics.calibration import expected_calibration_error, reliability

pytestmark = pytest.mark.quick


def brute_force(confidences: list[float], right: list[bool], bins: int) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        rows = [
            (c, r) for c, r in zip(confidences, right, strict=True)
            if low < c <= high or (number == 0 and c == 0)
        ]  # fmt: skip
        if rows:
            gap = sum(r for _, r in rows) / len(rows) - sum(c for c, _ in rows) / len(rows)
            total += len(rows) / len(confidences) * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_the_error_is_that_of_its_definition(bins: int) -> None:
    random = np.random.default_rng(bins)
    confidences = [*random.uniform(size=300).tolist(), 0.0, 1.0]
    right = (random.uniform(size=302) < 0.7).tolist()
    found = reliability(confidences, right, bins)
    assert sum(part.rows for part in found) == 302
    assert expected_calibration_error(found) == pytest.approx(brute_force(confidences, right, bins))


def test_edges_belong_to_the_bin_below() -> None:
    values = [k / 10 for k in range(1, 11)]
    assert [part.high for part in reliability(values, [True] * 10)] == pytest.approx(values)


def test_a_calibrated_model_has_no_error_and_an_overconfident_one_has() -> None:
    right = [True] * 80 + [False] * 20
    assert expected_calibration_error(reliability([0.8] * 100, right)) == pytest.approx(0.0)
    assert expected_calibration_error(reliability([0.95] * 100, right)) == pytest.approx(0.15)
