"""Metrics of any number of classes for a row, from the counts of right and wrong decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def multi_label_scores(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> dict[str, float]:
    """F1 over all decisions, mean of F1 over the classes, and fraction of rows without a mistake.

    F1 is 2·TP / (2·TP + FP + FN), and 0 where it would be 0 / 0. One class is as any other number
    of them: only its presence counts, not its absence.

    Args:
        labels: Whether each row has each class, (n, classes).
        predictions: The same of the predictions.

    Example:
        >>> multi_label_scores([[1, 1], [0, 1]], [[1, 0], [0, 1]])
        {'micro_f1': 0.8, 'macro_f1': 0.8333333333333333, 'accuracy': 0.5}
    """
    right, predicted, present = _counts(labels, predictions)
    by_class = _ratio(2 * right, predicted + present)
    over_all = _ratio(2 * right.sum(), predicted.sum() + present.sum())
    is_right = np.equal(np.asarray(labels, bool), np.asarray(predictions, bool)).all(axis=1)
    return {
        "micro_f1": float(over_all),
        "macro_f1": float(by_class.mean()),
        "accuracy": float(is_right.mean()),
    }


def multi_label_class_scores(
    names: Sequence[str], labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> dict[str, dict[str, float]]:
    """F1, precision and recall of each class, in [0, 1], and the number of its rows.

    Args:
        names: The classes.
        labels: As in :func:`multi_label_scores`.
        predictions: As in :func:`multi_label_scores`.

    Example:
        >>> multi_label_class_scores(["a"], [[1], [0], [0]], [[1], [1], [0]])
        {'a': {'f1': 0.6666666666666666, 'precision': 0.5, 'recall': 1.0, 'rows': 1}}
    """
    right, predicted, present = _counts(labels, predictions)
    f1 = _ratio(2 * right, predicted + present)
    columns = (f1, _ratio(right, predicted), _ratio(right, present), present)
    return {
        name: {"f1": float(f), "precision": float(p), "recall": float(r), "rows": int(n)}
        for name, f, p, r, n in zip(names, *columns, strict=True)
    }


def _counts(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], ...]:
    """How often each class is right, predicted, and there; (classes,) each."""
    has, predicted = np.asarray(labels, bool), np.asarray(predictions, bool)
    return (has & predicted).sum(axis=0), predicted.sum(axis=0), has.sum(axis=0)


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """0 where it would be 0 / 0."""
    below = np.asarray(whole, np.float64)
    return np.divide(part, below, out=np.zeros_like(below), where=below > 0)
