"""Paired tests over seeds: means, intervals, p-values, Holm's correction, power."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from statistics import fmean
from typing import TypeVar

import numpy as np
from scipy.special import nctdtr, stdtrit

SIGNIFICANCE = 0.05
POWER = 0.8
"""The power that :func:`seeds_needed` asks for."""
MAX_EXACT_SEEDS = 16
"""With up to 16 differences, all sign patterns are tried; with more, ``2**16 - 1`` random ones."""
MIN_SEEDS = 6
"""The smallest n whose smallest two-sided sign-flip p-value, 2 / 2**n, is below 0.05."""
MOST_SEEDS_NEEDED = 10_000
"""The largest number of seeds that :func:`seeds_needed` returns."""


@dataclass(frozen=True)
class Summary:
    """n values: mean, standard deviation (ddof = 1) and the t interval [low, high] of the mean.

    ``sd``, ``low`` and ``high`` are None for a single value.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and the 95% interval mean ± t(0.975, n - 1) · sd / √n.

    Raises:
        ValueError: ``values`` is empty.

    Example:
        >>> summarize([1.0, 2.0, 3.0])
        Summary(n=3, mean=2.0, sd=1.0, low=-0.484..., high=4.484...)
    """
    n = len(values)
    if n == 0:
        raise ValueError("nothing to summarize: no values")
    mean = fmean(values)
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p-value of a sign-flip test: the share of sign patterns with as large a |sum|.

    If the arms do not differ, each difference d_i is as likely as -d_i. The test is exact up to
    16 differences. Above that it uses random patterns with a fixed seed and counts the observed
    pattern too.

    Args:
        differences: One difference per seed.

    Raises:
        ValueError: ``differences`` is empty.

    Example:
        >>> sign_flip_p([0.1, 0.2, 0.3])
        0.25

    Source:
        R. A. Fisher, The Design of Experiments (1935), section 21; computed by
        ``scipy.stats.permutation_test``.
    """
    # Scores are multiples of 1 / examples, so sums tie often: rounding must not break the ties.
    d = np.round(np.asarray(differences, dtype=float), 12)
    if d.size == 0:
        raise ValueError("nothing to test: no paired differences")
    if d.size == 1:
        return 1.0
    from scipy.stats import permutation_test  # whose import takes half a second

    test = permutation_test(
        (d,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**MAX_EXACT_SEEDS - (d.size > MAX_EXACT_SEEDS),
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of m p-values: max over i <= j of min(1, (m - i + 1) · p_(i)).

    It keeps the chance of one or more false positives among all m tests at the level of the test.

    Example:
        >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]

    Source:
        S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6
        (1979).
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return [float(value) for value in adjusted]


def min_seeds(family: int, error: float = SIGNIFICANCE) -> int:
    """The fewest seeds n with which one of ``family`` tests can reach p < error after correction.

    The smallest possible corrected p-value is family · 2 / 2**n.

    >>> min_seeds(1), min_seeds(4), min_seeds(20)
    (6, 8, 10)
    """
    return next(n for n in count(MIN_SEEDS) if family * 2 / 2**n < error)


def power(n: int, mean: float, sd: float, family: int = 1, error: float = SIGNIFICANCE) -> float:
    """The chance that n paired differences N(mean, sd²) are significant at error / family.

    This is the power of the two-sided t test, which the sign-flip test approaches as n grows. It
    is 0 below the fewest seeds that can reach significance.

    Source:
        Cohen, Statistical Power Analysis (1988), chapter 2: under the noncentral t distribution
        with n - 1 degrees of freedom and noncentrality √n · mean / sd.
    """
    if n < min_seeds(family, error):
        return 0.0
    if sd == 0:
        return float(mean != 0)
    noncentrality = math.sqrt(n) * abs(mean) / sd
    critical = float(stdtrit(n - 1, 1 - error / family / 2))
    same_sign = 1 - float(nctdtr(n - 1, noncentrality, critical))
    other_sign = float(nctdtr(n - 1, noncentrality, -critical))
    # SciPy returns NaN instead of 0 for the far tail of a large noncentrality.
    return same_sign + (0.0 if math.isnan(other_sign) else other_sign)


def seeds_needed(
    summary: Summary, family: int = 1, wanted: float = POWER, error: float = SIGNIFICANCE
) -> int | None:
    """The number of seeds that detects a difference like the observed one with 80% power.

    Args:
        summary: The observed differences.
        family: How many comparisons Holm's correction is for.
        wanted: The power.
        error: The level of the test, before Holm's correction.

    Returns:
        None for a single seed or no observed difference, and for more than 10,000 seeds.
    """
    if summary.sd is None or summary.mean == 0:
        return None
    candidates = range(min_seeds(family, error), MOST_SEEDS_NEEDED + 1)
    power_with = partial(power, mean=summary.mean, sd=summary.sd, family=family, error=error)
    index = bisect_left(candidates, wanted, key=power_with)
    return candidates[index] if index < len(candidates) else None


@dataclass(frozen=True)
class PairedDifference:
    """``arm`` minus ``baseline`` in one metric, paired by the seeds that both have.

    ``differences`` are {seed: difference}; ``p_adjusted`` is the p-value after Holm's correction
    for ``family`` comparisons.
    """

    arm: str
    baseline: str
    metric: str
    differences: Mapping[int, float]
    summary: Summary
    p_value: float
    p_adjusted: float
    family: int = 1

    @property
    def outcome(self) -> str:
        """The outcome: ``open`` if there are too few seeds, ``higher``, ``lower``, or
        ``no difference found``.

        >>> paired_difference("f1", "b", {0: 0.9}, "a", {0: 0.5}).outcome
        'open'
        """
        return describe_outcome(self.summary.n, self.summary.mean, self.p_adjusted, self.family)

    @property
    def seeds_needed(self) -> int | None:
        """See :func:`seeds_needed`."""
        return seeds_needed(self.summary, self.family)


Difference = TypeVar("Difference", bound=PairedDifference)


def describe_outcome(n: int, mean: float, p_adjusted: float, family: int) -> str:
    """The outcome of one of ``family`` tests of ``n`` pairs, see ``PairedDifference.outcome``."""
    if n < min_seeds(family):
        return "open"
    if p_adjusted >= SIGNIFICANCE:
        return "no difference found"
    return "higher" if mean > 0 else "lower"


def default_baseline(arms: Sequence[str]) -> str:
    """The baseline if the user names none: "lora" if there is such an arm, else the first arm.

    >>> default_baseline(["full", "lora"]), default_baseline(["a", "b"])
    ('lora', 'a')
    """
    return "lora" if "lora" in arms else arms[0]


def paired_difference(
    metric: str,
    arm: str,
    scores: Mapping[int, float],
    baseline: str,
    baseline_scores: Mapping[int, float],
) -> PairedDifference | None:
    """Test the differences ``scores`` - ``baseline_scores``, paired by seed.

    Args:
        metric: The name of the metric.
        arm: The label of the arm.
        scores: {seed: score} of the arm.
        baseline: The label of the baseline.
        baseline_scores: {seed: score} of the baseline.

    Returns:
        None if the two share no seed.

    Example:
        >>> pair = paired_difference("f1", "b", {0: 0.75, 1: 0.5}, "a", {0: 0.5, 2: 0.1})
        >>> pair.differences, pair.p_value
        ({0: 0.25}, 1.0)
    """
    differences = {
        seed: score - baseline_scores[seed]
        for seed, score in scores.items()
        if seed in baseline_scores
    }
    if not differences:
        return None
    values = [*differences.values()]
    p_value = sign_flip_p(values)
    return PairedDifference(arm, baseline, metric, differences, summarize(values), p_value, p_value)


def adjust(pairs: Sequence[Difference]) -> list[Difference]:
    """The same comparisons with Holm's correction for their number (arms × tasks)."""
    adjusted = holm([pair.p_value for pair in pairs])
    return [
        replace(pair, p_adjusted=p, family=len(pairs))
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
