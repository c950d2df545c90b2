"""The metrics of GLUE, computed by scikit-learn; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError

Ids = npt.NDArray[np.int64]
Metric = Callable[[Ids, Ids, int], float]


def accuracy(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """Share of predictions that are right, in [0, 1].

    >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))
    0.75
    """
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """2·TP / (2·TP + FP + FN) of the class ``positive``, in [0, 1]; 0 where TP = 0.

    >>> f1(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))
    0.8
    """
    from sklearn.metrics import f1_score

    return float(f1_score(labels == positive, predictions == positive, zero_division=0.0))


def macro_f1(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """Mean of F1 over the classes that occur, each in turn the positive one, in [0, 1].

    >>> round(macro_f1(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])), 4)
    0.7333
    """
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews_correlation(labels: Ids, predictions: Ids, positive: int = 1) -> float:
    """Correlation of labels and predictions, in [-1, 1]; 0 where either is constant.

    >>> matthews_correlation(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    -1.0
    """
    from sklearn.metrics import matthews_corrcoef

    if len(np.union1d(labels, predictions)) == 1:  # where scikit-learn returns 0 and warns
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


Values = npt.NDArray[np.float64]


def pearson(labels: Values, predictions: Values) -> float:
    """Correlation of values, in [-1, 1]; 0 where either side is constant.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.5])), 4)
    0.9979
    """
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def spearman(labels: Values, predictions: Values) -> float:
    """Correlation of ranks, ties sharing theirs, in [-1, 1]; 0 where either side is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 40.0]))
    1.0
    """
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(function: Callable[..., Any], labels: Values, predictions: Values) -> float:
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return float(function(labels, predictions).statistic)


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews_correlation": matthews_correlation,
}


def score(
    metrics: Sequence[str], labels: npt.ArrayLike, logits: npt.ArrayLike, positive: int = 1
) -> dict[str, float]:
    """The ``metrics`` of the classes with the largest logits, and ``loss``, the mean of -log p.

    ``labels`` (n,) are class ids, ``logits`` (n, classes). The loss is in nats, computed in
    float64. Raises ``IwloraError`` for logits that are not finite or do not fit the labels.

    >>> score(["accuracy"], labels=[0, 1], logits=[[2.0, 2.0], [2.0, 2.0]])["loss"]
    0.6931471805599453
    """
    truth = np.asarray(labels, dtype=np.int64)
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or truth.shape != values.shape[:1] or not len(truth):
        raise IwloraError(
            f"labels of shape {truth.shape} and logits of shape {values.shape} cannot be scored; "
            "(n,) and (n, classes) with n > 0 are wanted"
        )
    if not np.isfinite(values).all():
        raise IwloraError("the logits are not finite: the model diverged; lower train.lr")
    shifted = values - values.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(truth)), truth].mean()
    predictions = values.argmax(axis=1)
    return {
        **{name: METRICS[name](truth, predictions, positive) for name in metrics},
        "loss": float(loss),
    }
