"""Metrics of regression: correlations, computed by SciPy, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def pearson(targets: Values, predictions: Values) -> float:
    """Pearson's correlation, in [-1, 1]; 0 where either side is constant.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.5])), 4)
    0.9979
    """
    from scipy.stats import pearsonr

    return _correlation(pearsonr, targets, predictions)


def spearman(targets: Values, predictions: Values) -> float:
    """Spearman's correlation of ranks (ties share a rank), in [-1, 1]; 0 as for ``pearson``.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 40.0]))
    1.0
    """
    from scipy.stats import spearmanr

    return _correlation(spearmanr, targets, predictions)


def _correlation(function: Callable[..., Any], targets: Values, predictions: Values) -> float:
    if len(targets) < 2 or np.ptp(targets) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return float(function(targets, predictions).statistic)


def rmse(targets: Values, predictions: Values) -> float:
    """Root mean squared error, in the units of the targets.

    >>> rmse(np.array([1.0, 2.0]), np.array([4.0, 6.0]))
    3.5355339059327378
    """
    error = predictions - targets
    largest = float(np.abs(error).max(initial=0.0))
    return largest * float(np.sqrt(np.square(error / largest).mean())) if largest else 0.0


def mae(targets: Values, predictions: Values) -> float:
    """Mean absolute error, in the units of the targets.

    >>> mae(np.array([1.0, 2.0]), np.array([4.0, 6.0]))
    3.5
    """
    return float(np.abs(predictions - targets).mean())


METRICS = {metric.__name__: metric for metric in (pearson, spearman, rmse, mae)}
