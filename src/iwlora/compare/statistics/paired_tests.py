"""Means, intervals and paired tests over seeds, corrected for their number. No files, no words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

SIGNIFICANCE = 0.05
POWER = 0.8
"""The chance to find a difference that is there, which the number of seeds is asked for."""
EXACT_SEEDS = 16
"""Up to here every sign pattern is tried; above, ``2**16 - 1`` seeded random ones are."""
MIN_SEEDS = 6
"""The least n whose smallest two-sided sign-flip p-value, 2 / 2**n, is below 0.05."""
MOST_SEEDS = 10_000
"""Beyond this many, asking how many seeds are needed has no useful answer."""


@dataclass(frozen=True)
class Summary:
    """n values: mean, standard deviation (ddof = 1) and the t interval [low, high] of the mean.

    ``sd``, ``low`` and ``high`` are None for a single value, which tells nothing about spread.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float], level: float = 0.95) -> Summary:
    """Mean, sd and mean ± t(level, n - 1) sd / √n; ``ValueError`` without values.

    >>> summarise([1.0, 2.0, 3.0])
    Summary(n=3, mean=2.0, sd=1.0, low=-0.484..., high=4.484...)
    """
    n = len(values)
    if n == 0:
        raise ValueError("nothing to summarise: no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of paired differences: the part of sign patterns with as large a |sum|.

    Under no difference every d_i is as likely as -d_i. Exact up to 16 differences; beyond, an
    estimate over random patterns, the observed one counted in, the same at every call.
    Source: R. A. Fisher, The Design of Experiments (1935), section 21; computed by
    ``scipy.stats.permutation_test``.

    >>> sign_flip_p([0.1, 0.2, 0.3])
    0.25
    """
    from scipy.stats import permutation_test

    # Scores are multiples of 1 / examples, so sums tie often: rounding must not break the ties.
    d = np.round(np.asarray(differences, dtype=float), 12)
    if d.size == 0:
        raise ValueError("nothing to test: no paired differences")
    if d.size == 1:
        return 1.0
    tested = permutation_test(
        (d,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**EXACT_SEEDS - (d.size > EXACT_SEEDS),
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: p_(i) · (m - i + 1), kept in order, at most 1.

    The chance of one false difference among all is then at most the level. Source: S. Holm, A
    simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979); computed
    by ``statsmodels``.

    >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def least_seeds(family: int) -> int:
    """The fewest seeds that can decide among ``family`` comparisons: family · 2 / 2**n < 0.05.

    >>> least_seeds(1), least_seeds(4), least_seeds(20)
    (6, 8, 10)
    """
    n = MIN_SEEDS
    while family * 2 / 2**n >= SIGNIFICANCE:
        n += 1
    return n


def power(n: int, mean: float, sd: float, family: int = 1) -> float:
    """The chance that n paired differences N(mean, sd²) are found, at the level 0.05 / family.

    That of the t test, which the sign-flip test approaches as n grows; 0 below the fewest seeds
    that can decide. Source: noncentral t, ``statsmodels.stats.power``.
    """
    from statsmodels.stats.power import TTestPower

    if n < least_seeds(family):
        return 0.0
    if sd == 0:
        return float(mean != 0)
    return float(TTestPower().power(abs(mean) / sd, n, SIGNIFICANCE / family))


def seeds_needed(summary: Summary, family: int = 1) -> int | None:
    """The fewest seeds in all that find a difference as large as the observed one 4 times in 5.

    None where nothing was observed to go by (one seed, or no difference), and beyond 10,000.
    """
    if summary.sd is None or summary.mean == 0:
        return None
    low = high = least_seeds(family)
    while power(high, summary.mean, summary.sd, family) < POWER:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while low < high:
        middle = (low + high) // 2
        if power(middle, summary.mean, summary.sd, family) < POWER:
            low = middle + 1
        else:
            high = middle
    return high if high <= MOST_SEEDS else None


@dataclass(frozen=True)
class PairedDifference:
    """``arm`` minus ``baseline`` in one metric, paired by the seeds that both have.

    ``p_adjusted`` is the p-value by Holm among all ``family`` comparisons that are made.
    """

    arm: str
    baseline: str
    metric: str
    seeds: tuple[int, ...]
    summary: Summary
    p_value: float
    p_adjusted: float
    family: int = 1


def baseline_of(arms: Sequence[str]) -> str:
    """What arms are compared with where none is named: "lora" when there is one, else the first.

    >>> baseline_of(["full", "lora"]), baseline_of(["a", "b"])
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
    """Differences ``scores`` - ``baseline_scores`` ({seed: score}); None without a shared seed.

    >>> pair = paired_difference("f1", "b", {0: 0.75, 1: 0.5}, "a", {0: 0.5, 2: 0.1})
    >>> pair.seeds, pair.summary.mean, pair.p_value
    ((0,), 0.25, 1.0)
    """
    seeds = tuple(seed for seed in scores if seed in baseline_scores)
    if not seeds:
        return None
    differences = [scores[seed] - baseline_scores[seed] for seed in seeds]
    return PairedDifference(
        arm, baseline, metric, seeds, summarise(differences), p := sign_flip_p(differences), p
    )


def adjust(pairs: Sequence[PairedDifference]) -> list[PairedDifference]:
    """The same comparisons as one family: methods × tasks, corrected by Holm."""
    adjusted = holm([pair.p_value for pair in pairs])
    return [
        replace(pair, p_adjusted=p, family=len(pairs))
        for pair, p in zip(pairs, adjusted, strict=True)
    ]


def outcome(pair: PairedDifference) -> str:
    """ "open" with too few seeds to decide, else "higher", "lower" or "no difference found".

    >>> outcome(paired_difference("f1", "b", {0: 0.9}, "a", {0: 0.5}))
    'open'
    """
    if pair.summary.n < least_seeds(pair.family):
        return "open"
    if pair.p_adjusted >= SIGNIFICANCE:
        return "no difference found"
    return "higher" if pair.summary.mean > 0 else "lower"
