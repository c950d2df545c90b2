"""Calibration: whether predictions of 80% confidence are right in 80% of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 10
"""Of equal width from 0 to 1, as most papers have."""


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is in (low, high]: how many, their mean confidence and accuracy."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability(confidences: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram that have rows.

    Args:
        confidences: (rows,) the probability of the predicted class.
        right: (rows,) whether the prediction is right.
        bins: How many bins of equal width there are.

    Example:
        >>> reliability([0.55, 0.95, 1.0], [True, True, False])[1]
        Bin(low=0.9, high=1.0, rows=2, confidence=0.975, accuracy=0.5)
    """
    values, hits = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    index = np.clip(np.ceil(np.round(values * bins, 9)).astype(int) - 1, 0, bins - 1)
    found = []
    for number in range(bins):
        rows = index == number
        if rows.any():
            mean, accuracy = float(values[rows].mean()), float(hits[rows].mean())
            edges = number / bins, (number + 1) / bins
            found.append(Bin(*edges, int(rows.sum()), mean, accuracy))
    return found


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE: Σ over bins of (rows / all rows) · |accuracy - mean confidence|.

    Example:
        >>> expected_calibration_error([Bin(0.9, 1.0, 3, 1.0, 0.75), Bin(0.4, 0.5, 1, 0.5, 0.75)])
        0.25

    Source:
        Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., arXiv:1706.04599.
    """
    total = sum(part.rows for part in bins)
    return math.fsum(part.rows / total * abs(part.accuracy - part.confidence) for part in bins)
