"""A study of several arms: fixed seeds for all of them, or draws until each has its verdict.

Some arms have no difference from the baseline, some a small and some a large one. A fixed plan
gives all arms the seeds that the smallest difference needs. A race ends each arm with its verdict:
clear ones after the fewest draws that can decide.

An arm's score in a draw is its true mean plus a deviation, drawn from the recorded runs. Two
deviations differ as the arms of a pair do: *independent* ones are those of LoRA's runs from their
mean, those of *other start* the recorded differences divided by √2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from iwlora.compare.statistics.paired_tests import Summary, seeds_needed
from iwlora.compare.statistics.sequential import fewest_draws, p_difference, p_within
from iwlora.results.comparison.record import StoppingRule
from verdict_price.bank import Array, Bank, Flags
from verdict_price.planted import NULLS, Pairs
from verdict_price.replay import Way, minutes_per_run, sd_of_null
from verdict_price.simulation import t_test

TRUTHS = (0.0, 0.0, 1.0, -2.0, -4.0)
"""Of the arms, in points; the sixth arm is the baseline."""
STUDIES, MOST_DRAWS = 1000, 800


@dataclass(frozen=True)
class StudyPrice:
    """What a study costs, in runs and minutes of one core, without the search.

    ``power`` is the share of studies that find the arm whose difference is the planned one;
    ``false_difference`` and ``false_within`` are the shares with any wrong verdict of that kind.
    ``draws`` are the mean draws of each arm.
    """

    draws: tuple[float, ...]
    runs: float
    minutes: float
    power: float
    false_difference: float
    false_within: float


@dataclass(frozen=True)
class Outcomes:
    """Of each study and arm: its draws, and whether it is called different, better or within."""

    draws: Array
    differs: Flags
    better: Flags
    within: Flags


def deviations(pairs: Pairs, kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Deviations in points, whose differences vary like those of the recorded pairs."""
    values = pairs.differences() / math.sqrt(2)
    if kind == "independent":  # the runs behind the pairs, each of which is in several
        right = {row.tobytes(): 100 * (row > 0).mean() for row in (*pairs.arm, *pairs.baseline)}
        accuracies = np.array([*right.values()])
        values = (accuracies - accuracies.mean()) * math.sqrt(len(right) / (len(right) - 1))
    signed: Array = rng.choice(values, shape) * rng.choice([-1.0, 1.0], shape)
    return signed


def simulated_differences(pairs: Pairs, kind: str, draws: int, rng: np.random.Generator) -> Array:
    """(studies, arms, draws) differences from the baseline, which all arms of a draw share."""
    scores = deviations(pairs, kind, rng, (STUDIES, len(TRUTHS) + 1, draws))
    differences: Array = scores[:, 1:] - scores[:, :1] + np.array(TRUTHS)[:, None]
    return differences


def holm(p_values: Array) -> Array:
    """Holm's adjusted p-values of (..., arms)."""
    order = p_values.argsort(-1)
    factors = np.arange(p_values.shape[-1], 0, -1)
    adjusted = np.take_along_axis(p_values, order, -1) * factors
    adjusted = np.minimum(np.maximum.accumulate(adjusted, -1), 1.0)
    found = np.empty_like(adjusted)
    np.put_along_axis(found, order, adjusted, -1)
    return found


def race(differences: Array, rule: StoppingRule) -> Outcomes:
    """Add draws until each arm has its verdict, or until there are no more.

    Args:
        differences: (studies, arms, draws).
        rule: What is promised.
    """
    p_of = p_difference(differences), p_within(differences, rule.difference)
    means = differences.cumsum(-1)
    shape = differences.shape[:2]
    seen = [np.ones(shape), np.ones(shape)]
    differs, better, within = (np.zeros(shape, bool) for _ in range(3))
    draws, first = np.zeros(shape), fewest_draws(rule, shape[1])
    for look in range(differences.shape[-1]):
        is_open = ~differs & ~within
        if not is_open.any():
            break
        draws += is_open
        seen = [np.where(is_open, p[..., look], old) for p, old in zip(p_of, seen, strict=True)]
        different, inside = (holm(p) <= rule.error for p in seen)
        better |= is_open & different & (means[..., look] > 0)
        differs |= is_open & different
        within |= is_open & inside & ~different
    return Outcomes(np.maximum(draws, first), differs, better, within)


def fixed(differences: Array, rule: StoppingRule) -> Outcomes:
    """All draws for all arms, and the t test, which the sign-flip test approaches, with Holm."""
    different = holm(t_test(differences)[..., -1]) <= rule.error
    draws = np.full(different.shape, float(differences.shape[-1]))
    better = different & (differences.mean(-1) > 0)
    return Outcomes(draws, different, better, np.zeros_like(different))


def study_price(
    bank: Bank, way: Way, kind: str, lr: float, rule: StoppingRule, seed: int = 0
) -> StudyPrice:
    """What a study with arms of ``TRUTHS`` costs by one way.

    A race may have the fewest draws with which the power is reached.
    """
    rng, pairs = np.random.default_rng(seed), NULLS[kind](bank, way.split, lr)
    planned = TRUTHS.index(rule.difference)
    if way.sequential:
        differences = simulated_differences(pairs, kind, MOST_DRAWS, rng)
        found = race(differences, rule)
        ends = np.where(found.better[:, planned], found.draws[:, planned], np.inf)
        enough = np.quantile(ends, rule.power, method="inverted_cdf")
        found = race(differences[..., : int(min(enough, MOST_DRAWS))], rule)
    else:
        summary = Summary(pairs.freedom, rule.difference, sd_of_null(pairs)[0], None, None)
        count = seeds_needed(summary, len(TRUTHS), rule.power, rule.error) or MOST_DRAWS
        found = fixed(simulated_differences(pairs, kind, count, rng), rule)
    runs = (found.draws.sum(-1) + found.draws.max(-1)).mean()
    truths = np.array(TRUTHS)
    wrong = found.differs & (truths == 0)
    return StudyPrice(
        tuple(found.draws.mean(0).tolist()),
        float(runs),
        float(runs) * minutes_per_run(bank, way.split, lr),
        float(found.better[:, planned].mean()),
        float(wrong.any(-1).mean()),
        float((found.within & (np.abs(truths) >= rule.difference)).any(-1).mean()),
    )
