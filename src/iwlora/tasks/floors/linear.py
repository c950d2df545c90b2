"""Linear models of scikit-learn on given features: of words, or of a frozen model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

_MOST_STEPS = 100
_MOST_DECISIONS = 400_000
"""Training rows × classes; above it fewer rows are used, evenly spaced."""


def linear_classes(features: Any, labels: Sequence[int], scored: Any) -> list[int]:
    """The class of each scored row by logistic regression.

    Args:
        features: (training rows, features), an array or a sparse matrix.
        labels: The class id of each training row.
        scored: (scored rows, features).
    """
    targets = np.asarray(labels)
    classes = np.unique(targets)
    if len(classes) == 1:
        return [int(classes[0])] * scored.shape[0]
    rows = _rows(len(targets), len(classes))
    return [int(k) for k in _logistic(features[rows], targets[rows], scored)]


def linear_class_sets(
    features: Any, labels: Sequence[Sequence[int]], scored: Any, classes: int
) -> list[list[int]]:
    """The classes of each scored row by one logistic regression for each class."""
    rows = _rows(len(labels), classes)
    targets = np.zeros((len(labels), classes), dtype=bool)
    for row, ids in enumerate(labels):
        targets[row, list(ids)] = True
    chosen, used = targets[rows], features[rows]
    predicted = np.zeros((scored.shape[0], classes), dtype=bool)
    for k in range(classes):
        has_both = len(np.unique(chosen[:, k])) > 1
        predicted[:, k] = _logistic(used, chosen[:, k], scored) if has_both else chosen[0, k]
    return [[int(k) for k in row.nonzero()[0]] for row in predicted]


def linear_numbers(features: Any, labels: Sequence[float], scored: Any) -> list[float]:
    """The number of each scored row by ridge regression; the targets are standardized for it."""
    from sklearn.linear_model import Ridge

    targets = np.asarray(labels, dtype=np.float64)
    mean, spread = float(targets.mean()), float(targets.std()) or 1.0
    model = Ridge().fit(features, (targets - mean) / spread)
    return [float(value) for value in model.predict(scored) * spread + mean]


def _rows(rows: int, classes: int) -> Any:
    return np.arange(0, rows, max(1, -(-rows * classes // _MOST_DECISIONS)))


def _logistic(features: Any, targets: Any, scored: Any) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # a floor may stop early
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=_MOST_STEPS).fit(features, targets)
    return model.predict(scored)
