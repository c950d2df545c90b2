"""Sequential verdicts: the paired differences of an arm may be looked at after every draw.

A draw is one seed with everything that it decides. The evidence against a mean difference is an
e-process: under that mean it passes 1 / error with a probability of at most ``error``, however
often it is looked at and however many draws follow. The differences are taken to be normal, with
an unknown variance. Scores are means over many rows and nearly normal; an arm that fails in a few
draws only is not, and a comparison of few draws may miss such failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from iwlora.compare.statistics.paired_tests import holm
from iwlora.results.comparison.record import MAX_SEEDS, StoppingRule

Array = npt.NDArray[np.float64]

PRIOR_VARIANCE = 1.0
"""Of mean / sd under the alternative: the evidence is best for differences of about one sd."""
SIMULATIONS = 4000


@dataclass(frozen=True)
class Verdict:
    """What is known about an arm after ``draws`` paired draws.

    ``outcome`` is "better", "worse", "within" (the difference is smaller than the one that
    matters) or "open". ``mean`` lies in [low, high], the interval that holds for all arms and looks
    together; None after so few draws that there is none.
    ``p_difference`` and ``p_within`` are the p-values of the two kinds of verdict, valid at every
    look and corrected by Holm for the number of arms.
    """

    outcome: str
    draws: int
    mean: float
    low: float | None
    high: float | None
    p_difference: float
    p_within: float

    @property
    def is_open(self) -> bool:
        """Whether more draws are needed."""
        return self.outcome == "open"


def log_evidence(differences: Array, mean: float = 0.0) -> Array:
    """The logarithm of the evidence against a true ``mean``, after each draw.

    After n draws with the t statistic t of (differences - mean), and a = 1 + n · g:
    E_n = a^(-1/2) · [(1 + t² / (n - 1)) / (1 + t² / ((n - 1) · a))]^(n / 2), where mean / sd is
    N(0, g) under the alternative. If ``mean`` is the true one, P(E_n ≥ 1 / p for any n) ≤ p.

    Args:
        differences: (..., n), the draws in their order, oriented so that higher is better.
        mean: The mean under test, in the unit of the differences.

    Returns:
        (..., n) natural logarithms; 0 after the first draw, which has no variance.

    Example:
        >>> [round(float(value), 2) for value in log_evidence(np.array([1.0, 1.2, 0.8, 1.1]))]
        [0.0, 0.53, 1.27, 2.26]

    Source:
        T. L. Lai, On confidence sequences, Ann. Statist. 4 (1976); H. Wang and A. Ramdas,
        Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance,
        Sequential Analysis 44 (2025), equation 3.8.
    """
    return _log_evidence(*_moments(differences), mean)


def _moments(differences: Array) -> tuple[Array, Array, Array]:
    """The number of draws, their mean, and the sum of squares around it, after each draw."""
    n = np.arange(1, differences.shape[-1] + 1, dtype=float)
    # Centered on the first draw: the sum of squares of large equal numbers is 0, not rounding.
    shifted = differences - differences[..., :1]
    total = np.cumsum(shifted, -1)
    squares = np.maximum(np.cumsum(shifted**2, -1) - total**2 / n, 0.0)
    return n, differences[..., :1] + total / n, squares


def _log_evidence(n: Array, means: Array, squares: Array, mean: float) -> Array:
    a = 1 + n * PRIOR_VARIANCE
    between = n * (means - mean) ** 2  # t² / (n - 1) = between / squares
    above, below = squares + between, squares + between / a
    ratio = np.divide(above, below, out=np.ones_like(above), where=below > 0)
    evidence: Array = (n * np.log(ratio) - np.log(a)) / 2
    return np.where(n == 1, 0.0, evidence)


def half_width(differences: Array, error: float) -> Array:
    """Half of the interval around the mean that holds the true one at all looks, after each draw.

    The interval holds those means against which the evidence is below 1 / error. With
    c = (a / error²)^(1/n) it is √(squares / n · (c - 1) / (1 - c / a)), and infinite where c ≥ a:
    so few draws cannot decide.

    Args:
        differences: (..., n).
        error: The probability that the interval misses the true mean at any look.
    """
    n, _, squares = _moments(differences)
    scale = _scale(n, error)
    decisive = np.isfinite(scale)
    half = np.sqrt(squares / n * np.where(decisive, scale, 0.0))
    return np.where(decisive, half, math.inf)


def _scale(n: Array, error: float) -> Array:
    a = 1 + n * PRIOR_VARIANCE
    c = np.exp((np.log(a) - 2 * math.log(error)) / n)
    scale: Array = np.divide(c - 1, 1 - c / a, out=np.full_like(n, math.inf), where=c < a)
    return scale


def p_difference(differences: Array) -> Array:
    """The p-value of "the true mean is 0", valid at every look: min over looks of 1 / evidence."""
    evidence = np.maximum.accumulate(log_evidence(differences), -1)
    return np.minimum(np.exp(-evidence), 1.0)


def p_within(differences: Array, difference: float) -> Array:
    """The p-value of "the true mean is at least ``difference`` away from 0", valid at every look.

    Both of "mean ≥ difference" and "mean ≤ -difference" have to be rejected. Each is tested on one
    side: with the alternative's mean / sd restricted to that side, the evidence is at least
    2 · E_n - a^(-1/2), since the other half has at most a^(-1/2).
    """
    n, means, squares = _moments(differences)
    p_values = []
    for mean in (difference, -difference):
        inside = (means < mean) if mean > 0 else (means > mean)
        evidence = _log_evidence(n, means, squares, mean)
        one_sided = 2 * np.exp(np.minimum(evidence, 700.0)) - 1 / np.sqrt(1 + n * PRIOR_VARIANCE)
        one_sided = np.where(inside & (n > 1), np.maximum(one_sided, 1.0), 1.0)
        p_values.append(1 / np.maximum.accumulate(one_sided, -1))
    return np.maximum(*p_values)


def verdicts(differences: Mapping[str, Sequence[float]], rule: StoppingRule) -> dict[str, Verdict]:
    """The verdict on each arm, from its differences so far.

    Args:
        differences: {arm: its paired differences from the baseline, in the order of the draws}, in
            the unit of ``rule.difference`` and oriented so that higher is better. Arms that have a
            verdict need no further draws: the numbers of draws may differ. Those without any yet
            count in the correction too, or a verdict would be withdrawn when they get one.
        rule: What is promised.

    Returns:
        {arm: its verdict}, without the arms that have no draws.

    Example:
        >>> found = verdicts({"a": [1.9, 2.1, 2.0, 2.2, 1.8, 2.0]}, StoppingRule(difference=1.0))
        >>> found["a"].outcome, found["a"].draws
        ('better', 6)
    """
    paths = {arm: np.asarray(values, dtype=float) for arm, values in differences.items()}
    # The smallest of the p-values at all looks is the last; 1 without draws.
    differ = holm([float(p_difference(path).min(initial=1.0)) for path in paths.values()])
    within = holm(
        [float(p_within(path, rule.difference).min(initial=1.0)) for path in paths.values()]
    )
    found = {}
    for (arm, path), of_difference, of_within in zip(paths.items(), differ, within, strict=True):
        if not len(path):
            continue
        mean = fmean(differences[arm])
        half = float(half_width(path, rule.error / len(paths))[-1])
        outcome = "open"
        if of_difference <= rule.error:
            outcome = "better" if mean > 0 else "worse"
        elif of_within <= rule.error:
            outcome = "within"
        low, high = (mean - half, mean + half) if math.isfinite(half) else (None, None)
        found[arm] = Verdict(outcome, len(path), mean, low, high, of_difference, of_within)
    return found


def fewest_draws(rule: StoppingRule, arms: int = 1) -> int:
    """The fewest draws after which one of ``arms`` can be called better or worse.

    >>> fewest_draws(StoppingRule(difference=1.0)), fewest_draws(StoppingRule(difference=1.0), 5)
    (5, 6)
    """
    draws = np.arange(1, rule.max_seeds + 1, dtype=float)
    finite = np.isfinite(_scale(draws, rule.error / arms))
    return int(draws[finite][0]) if finite.any() else rule.max_seeds + 1


def power(rule: StoppingRule, mean: float, sd: float, arms: int = 1) -> tuple[float, float]:
    """What ``rule`` can reach, from simulated normal differences.

    Args:
        rule: What is promised.
        mean: The true mean difference of an arm.
        sd: The standard deviation of its differences between draws.
        arms: The number of arms that are compared with the baseline. The error is divided among
            them, as Holm's correction does before any of them is decided.

    Returns:
        (the probability of "better" or "worse", the mean number of draws until a verdict).

    Example:
        >>> reached, draws = power(StoppingRule(difference=1.0), mean=1.0, sd=0.9)
        >>> reached > 0.95, round(draws)
        (True, 12)
    """
    found, last = _simulated_ends(rule, mean, sd, arms, SIMULATIONS)
    return float(found.mean()), float(last.mean())


def draws_for_power(rule: StoppingRule, sd: float, arms: int = 1) -> int | None:
    """The smallest ``max_seeds`` within which the difference that matters has the power asked for.

    Args:
        rule: Its ``difference``, ``error`` and ``power`` count.
        sd: The standard deviation of the differences between draws.
        arms: As for :func:`power`.

    Returns:
        None if it is above the largest ``max_seeds``.

    Example:
        >>> draws_for_power(StoppingRule(difference=1.0), sd=1.9)
        55
    """
    most = rule.model_copy(update={"max_seeds": MAX_SEEDS})
    found, last = _simulated_ends(most, rule.difference, sd, arms, SIMULATIONS // 4)
    number = math.ceil(rule.power * len(last))
    ends = np.sort(last[found])
    return int(ends[number - 1]) if len(ends) >= number else None


def _simulated_ends(
    rule: StoppingRule, mean: float, sd: float, arms: int, simulations: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """(whether a difference is found, the draw that ends it) of each simulated arm."""
    draws = np.random.default_rng(0).normal(mean, sd, (simulations, rule.max_seeds))
    error = rule.error / arms
    decided = p_difference(draws) <= error
    ended = decided | (p_within(draws, rule.difference) <= error)
    first = np.where(ended.any(-1), ended.argmax(-1), rule.max_seeds - 1)
    return decided[np.arange(simulations), first], first + 1
