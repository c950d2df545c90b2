"""The earlier way to a verdict and each lever, replayed on recorded runs: draws and core-minutes.

The *earlier way* is that of version 0.1.0's last commit before sequential verdicts (6d0ee89): the
official split, a number of seeds that is fixed beforehand, a paired test at 5%. The number is the
one that its report asks for, with the standard deviation of the recorded pairs known. *Sequential*
ends with the verdict and has the fewest draws at most with which the power is 80%; its draws are
the mean over comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from iwlora.compare.statistics.paired_tests import Summary, seeds_needed
from iwlora.compare.statistics.sequential import fewest_draws, p_difference, p_within
from iwlora.results.comparison.record import StoppingRule
from verdict_price.bank import LORA, OFFICIAL, OTHER_START, STUDY, STUDY_OF_MEAN, Array, Bank, Flags
from verdict_price.planted import Pairs, planted_differences, resampled
from verdict_price.simulation import t_test

COMPARISONS, MOST_DRAWS = 2000, 800
OTHER_TRUTHS = (2.0, 0.0)
"""True differences for which a plan that is made for another one is followed."""


@dataclass(frozen=True)
class Way:
    """A way to a verdict: the scores it rests on, and whether draws are added until it is known."""

    name: str
    split: str
    sequential: bool = False


EARLIER = Way("earlier way: official split, seeds fixed", OFFICIAL)
TOGETHER = Way("all together", STUDY, sequential=True)
WAYS = (
    EARLIER,
    Way("study rows", STUDY),
    Way("study rows, mean of the last weights", STUDY_OF_MEAN),
    Way("sequential", OFFICIAL, sequential=True),
    TOGETHER,
    Way("all together, mean of the last weights", STUDY_OF_MEAN, sequential=True),
)


@dataclass(frozen=True)
class Price:
    """What a verdict on a true difference costs: ``minutes`` of one core for two arms.

    ``sd`` is the standard deviation of a difference in points, with its 95% interval, and
    ``other_draws`` are the mean draws {true difference: draws} at which the same plan ends.
    """

    sd: float
    sd_low: float
    sd_high: float
    draws: float
    minutes: float
    power: float
    other_draws: Mapping[float, float]


def sd_of_null(pairs: Pairs) -> tuple[float, float, float]:
    """√(mean d²) with its 95% interval from the chi² distribution.

    The arms are exchangeable, so the mean of the differences is known to be 0.
    """
    square, freedom = float((pairs.differences() ** 2).mean()), pairs.freedom
    low, high = (math.sqrt(freedom * square / chdtri(freedom, q)) for q in (0.025, 0.975))
    return math.sqrt(square), low, high


def minutes_per_run(bank: Bank, split: str, lr: float) -> float:
    """Processor minutes of a run that is scored on ``split``, and on the official one anyway."""
    parts = ("setup", "training", *dict.fromkeys((OFFICIAL, split)))
    runs = [
        run
        for run in bank.runs
        if run.arm in (LORA, OTHER_START) and run.lr == lr and split in run.seconds
    ]
    return float(np.mean([sum(run.seconds[part] for part in parts) for run in runs])) / 60


def price(
    bank: Bank, way: Way, pairs: Pairs, lr: float, rule: StoppingRule, seed: int = 0
) -> Price:
    """The price of a verdict by one way.

    Args:
        bank: The recorded runs of a task.
        way: How the verdict is reached.
        pairs: Pairs of runs without a true difference, scored as the way needs it.
        lr: Their learning rate.
        rule: The true difference in points, the error and the power; its ``max_seeds`` is not used.
        seed: Of the resampled comparisons.
    """
    rng = np.random.default_rng(seed)
    pools = {
        truth: planted_differences(pairs, truth, rng) for truth in (rule.difference, *OTHER_TRUTHS)
    }
    sd, low, high = sd_of_null(pairs)
    limit, power = planned_draws(pairs, pools[rule.difference], way, rule, rng)
    draws = dict.fromkeys(pools, float(limit))
    if way.sequential:
        draws = {truth: mean_draws(pool, rule, limit, rng) for truth, pool in pools.items()}
    used = draws.pop(rule.difference)
    return Price(sd, low, high, used, 2 * used * minutes_per_run(bank, way.split, lr), power, draws)


def planned_draws(
    pairs: Pairs, pool: Array, way: Way, rule: StoppingRule, rng: np.random.Generator
) -> tuple[int, float]:
    """(the fixed number of draws of a way, or the most if they are added; the power with them)."""
    if way.sequential:
        return most_draws(pool, rule, rng)
    summary = Summary(pairs.freedom, rule.difference, sd_of_null(pairs)[0], None, None)
    count = seeds_needed(summary, wanted=rule.power) or MOST_DRAWS
    return count, fixed_power(pool, count, rule, rng)


def most_draws(pool: Array, rule: StoppingRule, rng: np.random.Generator) -> tuple[int, float]:
    """(the fewest draws at most with which the power is reached, the power)."""
    decided, ended = _verdicts(pool, rule, rng)
    for limit in range(fewest_draws(rule), MOST_DRAWS + 1):
        power = float(((decided == ended) & (ended <= limit)).mean())
        if power >= rule.power:
            break
    return limit, power


def mean_draws(pool: Array, rule: StoppingRule, limit: int, rng: np.random.Generator) -> float:
    """Mean draws until a verdict, or until ``limit``."""
    return float(np.minimum(_verdicts(pool, rule, rng)[1], limit).mean())


def _verdicts(pool: Array, rule: StoppingRule, rng: np.random.Generator) -> tuple[Array, Array]:
    """Of each comparison, the draws until "better" or "worse", and until any verdict."""
    draws = resampled(pool, COMPARISONS, MOST_DRAWS, rng)
    decided = _first(p_difference(draws) <= rule.error)
    within = _first(p_within(draws, rule.difference) <= rule.error)
    return decided, np.minimum(decided, within)


def _first(verdicts: Flags) -> Array:
    """After how many draws there is a verdict; ``MOST_DRAWS`` + 1 if there is none."""
    return np.where(verdicts.any(-1), verdicts.argmax(-1) + 1, MOST_DRAWS + 1)


def fixed_power(pool: Array, count: int, rule: StoppingRule, rng: np.random.Generator) -> float:
    """The share of comparisons of ``count`` draws whose paired test finds the difference.

    The t test stands for the sign-flip test, whose p-value it approaches.
    """
    draws = resampled(pool, COMPARISONS, count, rng)
    found = (t_test(draws)[:, -1] < rule.error) & (draws.mean(1) > 0)
    return float(found.mean())
