"""Metrics of classification: all but the accuracy are computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError
from iwlora.tasks.metrics.logits import finite_logits

Ids = npt.NDArray[np.int64]


def accuracy(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """Fraction of correct predictions, in [0, 1].

    >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))
    0.75
    """
    return float(np.mean(labels == predictions))


def f1(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """F1 of the class ``positive``: 2·TP / (2·TP + FP + FN), in [0, 1]; 0 where TP = 0.

    >>> f1(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))
    0.8
    """
    from sklearn.metrics import f1_score

    return float(f1_score(labels == positive, predictions == positive, zero_division=0.0))


def macro_f1(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """Unweighted mean of F1 over the classes that occur, in [0, 1].

    >>> round(macro_f1(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])), 4)
    0.7333
    """
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews_correlation(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """Matthews correlation coefficient, in [-1, 1]; 0 where either side is constant.

    >>> matthews_correlation(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    -1.0
    """
    from sklearn.metrics import matthews_corrcoef

    if len(np.union1d(labels, predictions)) == 1:  # where scikit-learn returns 0 and warns
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


METRICS = {metric.__name__: metric for metric in (accuracy, f1, macro_f1, matthews_correlation)}


def label_scores(
    names: Sequence[str], labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> dict[str, dict[str, float]]:
    """F1, precision and recall of each class, in [0, 1], and the number of its rows.

    Each is 0 where it would be 0 / 0.

    Args:
        names: The classes.
        labels: Class ids, (n,).
        predictions: The same of the predictions.

    Example:
        >>> label_scores(["a", "b"], [0, 1, 1], [0, 1, 0])["b"]
        {'f1': 0.6666666666666666, 'precision': 1.0, 'recall': 0.5, 'rows': 2}
    """
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        np.asarray(labels), np.asarray(predictions), labels=range(len(names)), zero_division=0.0
    )
    return {
        name: {"f1": float(f), "precision": float(p), "recall": float(r), "rows": int(n)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    }


def score(
    metrics: Sequence[str], labels: npt.ArrayLike, logits: npt.ArrayLike, positive: int = 1
) -> dict[str, float]:
    """The metrics of the classes with the largest logits, and ``loss``, the mean of -log p.

    Args:
        metrics: Names in ``METRICS``.
        labels: Class ids, (n,).
        logits: (n, classes).
        positive: The class whose F1 is computed.

    Returns:
        The metrics, and ``loss`` in nats, computed in float64.

    Raises:
        IwloraError: The logits are not finite, or their shape does not fit the labels.

    Example:
        >>> score(["accuracy"], labels=[0, 1], logits=[[2.0, 2.0], [2.0, 2.0]])["loss"]
        0.6931471805599453
    """
    targets = np.asarray(labels, dtype=np.int64)
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or targets.shape != values.shape[:1] or not len(targets):
        raise IwloraError(
            f"labels of shape {targets.shape} and logits of shape {values.shape} cannot be scored; "
            "accepted: (n,) and (n, classes) with n > 0"
        )
    shifted = finite_logits(values) - values.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    predictions = values.argmax(axis=1)
    return {
        **{name: METRICS[name](targets, predictions, positive) for name in metrics},
        "loss": float(-log_p[np.arange(len(targets)), targets].mean()),
    }
