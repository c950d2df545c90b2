"""Bootstrap intervals over seeds and examples, and aggregates over several tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]
REPLICATES = 2000
_MAX_ELEMENTS = 20_000_000
"""Of the weights (examples × replicates) and of the confusion tables in memory at once."""


def _ratio(above: Array, below: Array) -> Array:
    """``above / below``, and 0 where ``below`` is 0."""
    ratio: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio


def _accuracy(table: Array, positive: int) -> Array:
    return _ratio(np.einsum("...ii->...", table), table.sum((-2, -1)))


def _f1(table: Array, positive: int) -> Array:
    counted = table[..., :, positive].sum(-1) + table[..., positive, :].sum(-1)
    return _ratio(2 * table[..., positive, positive], counted)


def _macro_f1(table: Array, positive: int) -> Array:
    by_class = np.stack([_f1(table, label) for label in range(table.shape[-1])], -1)
    occurs = table.sum(-1) + table.sum(-2) > 0
    return _ratio((by_class * occurs).sum(-1), occurs.sum(-1))


def _matthews(table: Array, positive: int) -> Array:
    labels, predictions, n = table.sum(-1), table.sum(-2), table.sum((-2, -1))
    covariance = np.einsum("...ii->...", table) * n - (labels * predictions).sum(-1)
    squares = (n**2 - (labels**2).sum(-1)) * (n**2 - (predictions**2).sum(-1))
    return _ratio(covariance, np.sqrt(squares))


METRICS: Mapping[str, Callable[[Array, int], Array]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
}
"""Metrics of a confusion table (..., label, prediction), whose counts may be weighted."""


@dataclass(frozen=True)
class PairedPredictions:
    """What an arm and the baseline predicted for the same examples with the same seeds.

    ``labels`` (n,) and ``predictions`` (2, seeds, n), those of the arm first, are class ids below
    ``classes``; ``positive`` is the class that F1 counts.
    """

    metric: str
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    classes: int
    positive: int = 1

    def scores(self, weights: Array) -> Array:
        """The metric under each replicate's weights of the examples.

        Args:
            weights: (n, replicates).

        Returns:
            (2, seeds, replicates), the arm first.
        """
        seeds, replicates = self.predictions.shape[1], weights.shape[1]
        table = np.zeros((2, seeds, replicates, self.classes, self.classes))
        classes = np.arange(self.classes)[:, None]
        for label in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == label)
            found = (self.predictions[..., None, rows] == classes).astype(float)
            sums = found.reshape(-1, len(rows)) @ weights[rows]
            by_class = sums.reshape(2, seeds, self.classes, replicates)
            table[..., label, :] = np.moveaxis(by_class, -2, -1)
        return METRICS[self.metric](table, self.positive)


def bootstrap_differences(
    paired: PairedPredictions, replicates: int = REPLICATES, seed: int = 0
) -> Array:
    """(replicates,) mean differences, with seeds and examples drawn with replacement.

    A replicate has the same seeds and the same examples for both arms, so they stay paired.

    Source:
        A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007).
    """
    random = np.random.default_rng(seed)
    n, count = len(paired.labels), paired.predictions.shape[1]
    most = max(1, _MAX_ELEMENTS // max(n, 2 * count * paired.classes**2))
    chunks = []
    for start in range(0, replicates, most):
        size = min(most, replicates - start)
        drawn = random.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).T.astype(float)
        seeds = random.multinomial(count, [1 / count] * count, size).T  # (seeds, size)
        arm, baseline = paired.scores(weights)
        chunks.append(((arm - baseline) * seeds).sum(0) / count)
    return np.concatenate(chunks)


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95% interval; ``examples``: whether examples were resampled."""

    mean: float
    low: float | None
    high: float | None
    examples: bool


def variance_of_mean(
    differences: Sequence[float], paired: PairedPredictions | None = None, seed: int = 0
) -> float:
    """The variance of the mean of one task's ``differences`` by seed; 0 for a single one.

    With predictions it is the variance of the bootstrap over seeds and examples, times S / (S - 1)
    for S seeds; without them it is s² / S.
    """
    count = len(differences)
    if count < 2:
        return 0.0
    if paired is None:
        return float(np.var(differences, ddof=1)) / count
    return float(bootstrap_differences(paired, seed=seed).var(ddof=1)) * count / (count - 1)


def mean_over_tasks(
    differences: Sequence[Sequence[float]], variances: Sequence[float], examples: bool
) -> Interval:
    """The mean over tasks of the mean over seeds, with the interval mean ± t · √(Σ variance) / T.

    t has Welch and Satterthwaite's degrees of freedom: with few seeds the percentiles of a
    bootstrap are too narrow.

    Args:
        differences: ``differences[t]`` are the differences of task t by seed.
        variances: ``variances[t]`` is the variance of their mean, see :func:`variance_of_mean`.
        examples: Whether the variances count the examples too.

    Returns:
        An interval without bounds if a task has a single seed.
    """
    tasks = len(differences)
    mean = fmean(map(fmean, differences))
    if min(map(len, differences)) < 2:
        return Interval(mean, None, None, examples)
    total = math.fsum(variances)
    if total == 0:
        return Interval(mean, mean, mean, examples)
    freedom = total**2 / math.fsum(
        v**2 / (len(d) - 1) for v, d in zip(variances, differences, strict=True)
    )
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(total) / tasks
    return Interval(mean, mean - half, mean + half, examples)


def rows_needed(
    mean: float, variance: float, seed_variance: float, half_width: float, rows: int
) -> int | None:
    """How many scored rows make the interval of one task's mean difference leave out zero.

    The variance is V = V_seeds + V_rows, and V_rows falls as 1 / rows. With the t quantile
    t = half width / √V it solves t² (V_seeds + V_rows · rows / n) = mean² for n.

    Args:
        mean: The mean difference.
        variance: V, of the mean over seeds and rows.
        seed_variance: V_seeds, of the mean over seeds on the same rows.
        half_width: Of the 95% interval over seeds and rows.
        rows: How many rows are scored now.

    Returns:
        None if the spread between seeds alone is too large.

    Example:
        >>> rows_needed(0.02, 1e-4, 0.0, 0.04, 500), rows_needed(0.02, 1e-4, 1e-4, 0.04, 500)
        (2000, None)
    """
    if half_width <= 0:
        return None
    allowed = mean**2 * variance / half_width**2 - seed_variance
    by_rows = max(0.0, variance - seed_variance)
    return math.ceil(round(rows * by_rows / allowed, 6)) if allowed > 0 < by_rows else None


@dataclass(frozen=True)
class Aggregate:
    """A statistic over all tasks and seeds with its 95% percentile interval over seeds."""

    value: float
    low: float | None
    high: float | None


def interquartile_mean(values: Sequence[Sequence[float]]) -> Aggregate:
    """The mean of the middle half of the scores of all tasks and seeds (``values[task][seed]``).

    A lucky or a failed seed moves it less than the mean. The interval draws seeds within each
    task.

    Example:
        >>> interquartile_mean([[0.0, 0.5, 0.6, 9.0]]).value
        0.55

    Source:
        Agarwal et al. 2021, arXiv:2108.13264.
    """
    from scipy.stats import trim_mean

    return _stratified(values, lambda groups: trim_mean(np.concatenate(groups, -1), 0.25, axis=-1))


def probability_of_improvement(
    arm: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]
) -> Aggregate:
    """The chance that a run of the arm scores higher than one of the baseline on the same task.

    It is the mean over tasks of the Mann-Whitney statistic U / (n m); a tie counts as one half.
    Scores of which lower ones are better must be negated before.

    Example:
        >>> probability_of_improvement([[0.7, 0.9]], [[0.6, 0.8]]).value
        0.75

    Source:
        Agarwal et al. 2021, arXiv:2108.13264.
    """

    def statistic(samples: Sequence[Array]) -> Any:
        tasks = zip(samples[: len(arm)], samples[len(arm) :], strict=True)
        gains = (x[..., :, None] - y[..., None, :] for x, y in tasks)
        return np.mean([np.heaviside(gain, 0.5).mean((-2, -1)) for gain in gains], 0)

    return _stratified([*arm, *baseline], statistic)


def _stratified(scores: Sequence[Sequence[float]], statistic: Callable[..., Any]) -> Aggregate:
    """The statistic of ``scores[group][seed]``; the interval draws seeds within each group."""
    groups = [np.asarray(by_seed, dtype=float) for by_seed in scores]
    value = float(statistic(groups))
    if min(map(len, groups)) < 2:
        return Aggregate(value, None, None)
    random = np.random.default_rng(0)
    drawn = [random.choice(group, (REPLICATES, len(group))) for group in groups]
    low, high = np.quantile(statistic(drawn), [0.025, 0.975])
    return Aggregate(value, float(low), float(high))
