"""Whether the promises of sequential verdicts hold on real scores, under a look at every draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from iwlora.compare.statistics.sequential import fewest_draws, p_difference, p_within
from iwlora.results.comparison.record import StoppingRule
from verdict_price.bank import Array, Flags
from verdict_price.planted import Pairs, planted_differences, resampled

COMPARISONS = 10_000


@dataclass(frozen=True)
class Promises:
    """Shares of comparisons: with a wrong verdict, without and with a true difference; the power.

    ``uncorrected`` are those of the same wrong verdicts by a t test that is looked at as often.
    """

    false_difference: float
    false_within: float
    power: float
    uncorrected_difference: float
    uncorrected_within: float

    def kept(self, rule: StoppingRule) -> bool:
        """Whether both shares of wrong verdicts are at most the error that was allowed."""
        return max(self.false_difference, self.false_within) <= rule.error


def simulate(
    pairs: Pairs, rule: StoppingRule, comparisons: int = COMPARISONS, seed: int = 0
) -> Promises:
    """Simulate comparisons without a true difference, and with one of ``rule.difference``.

    Half of the planted comparisons have the arm better by it, half worse.
    """
    rng = np.random.default_rng(seed)
    null = resampled(planted_differences(pairs, 0.0, rng), comparisons, rule.max_seeds, rng)
    found, reached = [], []
    for points in (rule.difference, -rule.difference):
        pool = planted_differences(pairs, points, rng)
        planted = resampled(pool, comparisons // 2, rule.max_seeds, rng)
        found.append(planted)
        reached.append((p_difference(planted) <= rule.error) & (planted.cumsum(-1) * points > 0))
    true = np.concatenate(found)
    within = p_within(true, rule.difference) <= rule.error
    right = np.concatenate(reached)
    looks = slice(fewest_draws(rule) - 1, None)
    return Promises(
        false_difference=_ever(p_difference(null) <= rule.error),
        false_within=_ever(within),
        power=_ever(right & ~np.logical_or.accumulate(within, -1)),
        uncorrected_difference=_ever((t_test(null) <= rule.error)[:, looks]),
        uncorrected_within=_ever((_t_test_within(true, rule.difference) <= rule.error)[:, looks]),
    )


def _ever(verdicts: Flags) -> float:
    return float(verdicts.any(-1).mean())


def _t_statistics(differences: Array, mean: float) -> tuple[Array, Array]:
    """(degrees of freedom, t) after each draw."""
    n = np.arange(1, differences.shape[-1] + 1)
    means = differences.cumsum(-1) / n
    squares = np.maximum((differences**2).cumsum(-1) - n * means**2, 1e-12)
    error = np.sqrt(squares / np.maximum(n - 1, 1) / n)
    return np.maximum(n - 1, 1), (means - mean) / error


def t_test(differences: Array) -> Array:
    """The two-sided p-value of a t test of "no difference" after each draw."""
    freedom, t = _t_statistics(differences, 0.0)
    p_value: Array = 2 * stdtr(freedom, -np.abs(t))
    return p_value


def _t_test_within(differences: Array, difference: float) -> Array:
    """The p-value of two one-sided t tests of "at least ``difference`` away from 0"."""
    freedom, below = _t_statistics(differences, difference)
    _, above = _t_statistics(differences, -difference)
    p_value: Array = np.maximum(stdtr(freedom, below), stdtr(freedom, -above))
    return p_value
