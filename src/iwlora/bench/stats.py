"""Means, intervals and paired tests over seeds. Numbers and words only: no files, no figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

SIGNIFICANCE = 0.05
EXACT_SEEDS = 16
"""Up to here every sign pattern is tried; above, ``RANDOM_FLIPS`` seeded random ones are."""
RANDOM_FLIPS = 2**EXACT_SEEDS - 1
MIN_SEEDS = 6
"""The least n whose smallest two-sided sign-flip p-value, 2 / 2**n, is below 0.05."""

_PERCENT = ("accuracy", "f1", "matthews", "pearson", "spearman", "precision", "recall")


def scale(metric: str) -> float:
    """100 for a metric that is customarily told in points, 1 for any other (such as a loss).

    >>> scale("accuracy_mismatched"), scale("loss")
    (100.0, 1.0)
    """
    return 100.0 if any(name in metric for name in _PERCENT) else 1.0


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
    Source: R. A. Fisher, The Design of Experiments (1935), section 21.

    >>> sign_flip_p([0.1, 0.2, 0.3])
    0.25
    """
    d = np.asarray(differences, dtype=float)
    if d.size == 0:
        raise ValueError("nothing to test: no paired differences")
    if d.size <= EXACT_SEEDS:
        patterns = np.arange(2**d.size)[:, None] >> np.arange(d.size) & 1
        observed = 0
    else:
        patterns = np.random.default_rng(0).integers(0, 2, (RANDOM_FLIPS, d.size))
        observed = 1
    sums = np.abs((1 - 2 * patterns) @ d)
    # Scores are multiples of 1 / examples, so sums tie often: rounding must not break the ties.
    threshold = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    return float((np.count_nonzero(sums >= threshold) + observed) / (len(sums) + observed))


@dataclass(frozen=True)
class PairedDifference:
    """``arm`` minus ``baseline`` in one metric, paired by the seeds that both have."""

    arm: str
    baseline: str
    metric: str
    seeds: tuple[int, ...]
    summary: Summary
    p_value: float


def baseline_of(arms: Sequence[str]) -> str:
    """The arm that the others are compared with: "lora" when there is one, else the first.

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
        arm, baseline, metric, seeds, summarise(differences), sign_flip_p(differences)
    )


def _signed(value: float, metric: str) -> str:
    digits = 2 if scale(metric) > 1 else 4
    return f"{round(value * scale(metric), digits) + 0.0:+.{digits}f}"  # + 0.0: no "-0.00"


def _open(n: int) -> str:
    return (
        f"{n} seed{'s' * (n > 1)} cannot reach p < {SIGNIFICANCE} (the smallest possible is "
        f"{2 / 2**n:.2g}); it takes at least {MIN_SEEDS}"
    )


def outcome(pair: PairedDifference) -> str:
    """ "open" with fewer than 6 seeds, else "higher" or "lower", or "no difference found".

    >>> outcome(paired_difference("f1", "b", {0: 0.9}, "a", {0: 0.5}))
    'open'
    """
    if pair.summary.n < MIN_SEEDS:
        return "open"
    if pair.p_value >= SIGNIFICANCE:
        return "no difference found"
    return "higher" if pair.summary.mean > 0 else "lower"


def verdict(pair: PairedDifference) -> str:
    """The outcome for one arm with its numbers, or with the reason why it is open.

    >>> few = {0: 0.9, 1: 0.9, 2: 0.9}
    >>> print(verdict(paired_difference("f1", "b", few, "a", dict.fromkeys(few, 0.5))))
    b: open, 3 seeds cannot reach p < 0.05 (the smallest possible is 0.25); it takes at least 6
    """
    summary = pair.summary
    if outcome(pair) == "open" or summary.low is None or summary.high is None:
        return f"{pair.arm}: open, {_open(summary.n)}"
    mean, low, high = (_signed(v, pair.metric) for v in (summary.mean, summary.low, summary.high))
    points = " points" if scale(pair.metric) > 1 else ""
    return (
        f"{pair.arm}: {outcome(pair)} ({mean}{points} [{low}, {high}], p = {pair.p_value:.3f}, "
        f"{summary.n} seeds)"
    )


def headline(metric: str, baseline: str, pairs: Sequence[PairedDifference]) -> str:
    """The comparison in a sentence, for the head of a report.

    >>> print(headline("f1", "lora", []))
    Nothing to compare: no other arm shares a finished seed with lora.
    """
    if not pairs:
        return f"Nothing to compare: no other arm shares a finished seed with {baseline}."
    most = max(pair.summary.n for pair in pairs)
    if most < MIN_SEEDS:
        return f"Open, no winner is called: {_open(most)}."
    clauses = "; ".join(verdict(pair) for pair in pairs)
    note = f"; p not corrected for {len(pairs)} comparisons" if len(pairs) > 1 else ""
    return f"{metric} against {baseline}, paired by seed, 95% intervals: {clauses}{note}."
