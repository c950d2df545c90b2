"""Logits: a check before they are scored, and those of averaged probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError

Average: TypeAlias = Literal["probabilities", "logits"]


def finite_logits(values: Any) -> npt.NDArray[np.float64]:
    """Logits in float64; raises ``IwloraError`` where they are NaN or infinite."""
    logits = np.asarray(values, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise IwloraError("the logits are not finite: the model diverged; lower train.lr")
    return logits


Floats = npt.NDArray[np.float64]


def mean_class_logits(logits: Sequence[Any], weights: Floats, average: Average) -> Floats:
    """Logits whose softmax is the weighted mean of softmaxes, or the weighted mean of logits.

    log Σ_i w_i softmax(x_i), computed from the logs, so that no probability is rounded to 0.

    Args:
        logits: Of each model, (rows, ..., classes).
        weights: (models, rows), of which each column sums to 1.
        average: What is averaged.

    Example:
        >>> from scipy.special import softmax
        >>> half = np.full((2, 1), 0.5)
        >>> one, other = np.array([[0.0, 0.0]]), np.array([[0.0, 800.0]])
        >>> softmax(mean_class_logits([one, other], half, "probabilities"), axis=-1).round(9)
        array([[0.25, 0.75]])
    """
    from scipy.special import log_softmax, logsumexp

    stacked, by_row = _stacked(logits, weights)
    if average == "logits":
        return np.asarray((stacked * by_row).sum(axis=0))
    return np.asarray(logsumexp(log_softmax(stacked, axis=-1), axis=0, b=by_row))


def mean_binary_logits(logits: Sequence[Any], weights: Floats, average: Average) -> Floats:
    """As :func:`mean_class_logits`, where each logit has a probability of its own: its sigmoid."""
    from scipy.special import log_expit, logsumexp

    stacked, by_row = _stacked(logits, weights)
    if average == "logits":
        return np.asarray((stacked * by_row).sum(axis=0))
    yes, no = (logsumexp(log_expit(x), axis=0, b=by_row) for x in (stacked, -stacked))
    return np.asarray(yes - no)


def mean_values(values: Sequence[Any], weights: Floats) -> Floats:
    """The weighted mean of numbers, (rows, ...) of each model."""
    stacked, by_row = _stacked(values, weights)
    return np.asarray((stacked * by_row).sum(axis=0))


def _stacked(values: Sequence[Any], weights: Floats) -> tuple[Floats, Floats]:
    """(models, rows, ...) values in float64, and the weights with as many axes."""
    stacked = np.stack([np.asarray(of_model, dtype=np.float64) for of_model in values])
    return stacked, weights.reshape(*weights.shape, *[1] * (stacked.ndim - 2))
