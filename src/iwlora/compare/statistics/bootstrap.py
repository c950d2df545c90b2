"""Intervals that count both seeds and examples, and aggregates over several tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]
REPLICATES = 2000
_ELEMENTS_AT_ONCE = 20_000_000


@dataclass(frozen=True)
class Predictions:
    """What two arms predicted for the same examples with the same seeds.

    ``labels`` (n,) and ``arm``, ``baseline`` (seeds, n) are class ids below ``classes``.
    """

    metric: str
    labels: npt.NDArray[np.int64]
    arm: npt.NDArray[np.int64]
    baseline: npt.NDArray[np.int64]
    classes: int
    positive: int = 1


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95% interval; ``examples`` says whether these were resampled."""

    mean: float
    low: float | None
    high: float | None
    examples: bool


def _accuracy(table: Array, positive: int) -> Array:
    shares: Array = np.einsum("...ii->...", table) / table.sum((-2, -1))
    return shares


def _f1(table: Array, positive: int) -> Array:
    hits = table[..., positive, positive]
    told = table[..., :, positive].sum(-1) + table[..., positive, :].sum(-1)
    found: Array = np.divide(2 * hits, told, out=np.zeros_like(hits), where=told > 0)
    return found


def _macro_f1(table: Array, positive: int) -> Array:
    each = np.stack([_f1(table, one) for one in range(table.shape[-1])], -1)
    occurs = table.sum(-1) + table.sum(-2) > 0
    mean: Array = (each * occurs).sum(-1) / occurs.sum(-1)
    return mean


def _matthews(table: Array, positive: int) -> Array:
    true, told, n = table.sum(-1), table.sum(-2), table.sum((-2, -1))
    hits = np.einsum("...ii->...", table)
    above = hits * n - (true * told).sum(-1)
    below = np.sqrt((n**2 - (true**2).sum(-1)) * (n**2 - (told**2).sum(-1)))
    found: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


METRICS: Mapping[str, Callable[[Array, int], Array]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
}
"""Metrics of a confusion table (..., label, prediction), which may hold weights."""


def scores(
    metric: str,
    labels: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    classes: int,
    positive: int,
    weights: Array,
) -> Array:
    """(seeds, replicates): the metric of ``predictions`` (seeds, n) under ``weights`` (n, R)."""
    table = np.zeros((len(predictions), weights.shape[1], classes, classes))
    for true in range(classes):
        rows = np.flatnonzero(labels == true)
        for told in range(classes):
            here = (predictions[:, rows] == told).astype(float)
            table[:, :, true, told] = here @ weights[rows]
    return METRICS[metric](table, positive)


def resampled(found: Predictions, replicates: int = REPLICATES, seed: int = 0) -> Array:
    """(replicates,) mean differences, with seeds and examples drawn with replacement.

    Both arms keep their pairing: a replicate has the same seeds and the same examples for both.
    Source: A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007).
    """
    random = np.random.default_rng(seed)
    n, count = len(found.labels), len(found.arm)
    parts = []
    for some in _chunks(replicates, n):
        drawn = random.integers(0, n, (some, n)) + n * np.arange(some)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=some * n).reshape(some, n).T.astype(float)
        seeds = random.multinomial(count, [1 / count] * count, some).T  # (seeds, some)
        arm, base = (
            scores(found.metric, found.labels, p, found.classes, found.positive, weights)
            for p in (found.arm, found.baseline)
        )
        parts.append(((arm - base) * seeds).sum(0) / count)
    return np.concatenate(parts)


def variance(
    differences: Sequence[float], found: Predictions | None = None, seed: int = 0
) -> float:
    """The variance of the mean of one task's ``differences`` by seed, which are two or more.

    With predictions that of the bootstrap over seeds and examples, times S / (S - 1) for its S
    seeds; without them that over seeds alone.
    """
    count = len(differences)
    if found is None:
        return float(np.var(differences, ddof=1)) / count
    return float(resampled(found, seed=seed).var(ddof=1)) * count / (count - 1)


def combined(
    differences: Sequence[Sequence[float]],
    variances: Sequence[float],
    examples: bool,
    level: float = 0.95,
) -> Interval:
    """The mean over tasks of the mean over seeds, with its interval.

    ``differences[t]`` are those of task t by seed, ``variances[t]`` that of their mean, see
    :func:`variance`. The interval is mean ± t · √(Σ variance) / tasks with Welch and
    Satterthwaite's degrees of freedom: few seeds make a bootstrap's percentiles too narrow.
    No interval when a task has a single seed.
    """
    tasks = len(differences)
    mean = math.fsum(math.fsum(d) / len(d) for d in differences) / tasks
    if min(map(len, differences)) < 2:
        return Interval(mean, None, None, examples)
    total = math.fsum(variances)
    if total == 0:
        return Interval(mean, mean, mean, examples)
    freedom = total**2 / math.fsum(
        v**2 / (len(d) - 1) for v, d in zip(variances, differences, strict=True)
    )
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(total) / tasks
    return Interval(mean, mean - half, mean + half, examples)


@dataclass(frozen=True)
class Aggregate:
    """A number over all tasks and seeds with its 95% percentile interval over seeds."""

    value: float
    low: float | None
    high: float | None


def interquartile_mean(values: Sequence[Sequence[float]]) -> Aggregate:
    """The mean of the middle half of the scores of all tasks and seeds (``values[task][seed]``).

    Agarwal et al. 2021, arXiv:2108.13264: less moved by a lucky or a broken seed than the mean.
    The interval draws seeds within each task.

    >>> interquartile_mean([[0.0, 0.5, 0.6, 9.0]]).value
    0.55
    """
    from scipy.stats import trim_mean

    def statistic(drawn: Sequence[Array]) -> Any:
        return trim_mean(np.concatenate(drawn, -1), 0.25, axis=-1)

    return _stratified([np.asarray(v, dtype=float) for v in values], statistic)


def probability_of_improvement(
    arm: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]
) -> Aggregate:
    """The chance that a run of the arm beats one of the baseline on the same task, ties half.

    The mean over tasks of the Mann-Whitney statistic U / (n m). Agarwal et al. 2021.

    >>> probability_of_improvement([[0.7, 0.9]], [[0.6, 0.8]]).value
    0.75
    """

    def statistic(drawn: Sequence[Array]) -> Any:
        half = len(drawn) // 2
        parts = []
        for x, y in zip(drawn[:half], drawn[half:], strict=True):
            more = (x[..., :, None] > y[..., None, :]).mean((-2, -1))
            parts.append(more + 0.5 * (x[..., :, None] == y[..., None, :]).mean((-2, -1)))
        return np.mean(parts, 0)

    return _stratified([np.asarray(v, dtype=float) for v in (*arm, *baseline)], statistic)


def _stratified(groups: Sequence[Array], statistic: Callable[[Sequence[Array]], Any]) -> Aggregate:
    value = float(statistic(groups))
    if min(map(len, groups)) < 2:
        return Aggregate(value, None, None)
    random = np.random.default_rng(0)
    drawn = [random.choice(group, (REPLICATES, len(group))) for group in groups]
    low, high = np.quantile(statistic(drawn), [0.025, 0.975])
    return Aggregate(value, float(low), float(high))


def _chunks(total: int, width: int) -> list[int]:
    most = max(1, _ELEMENTS_AT_ONCE // max(1, width))
    return [min(most, total - start) for start in range(0, total, most)]
