"""Verdicts on arms that have searched their own learning rates, from recorded trials.

Both arms are LoRA, so their true difference at the best learning rate is 0. Each searches by
itself, on trials of its own draws and held-out rows, and is then compared at the learning rate that
it has chosen. What the search loses is the same in all draws that follow: no number of seeds
averages it out. Arms of a real comparison share the draws of their trials, and err more alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from iwlora.compare.statistics.sequential import p_difference, p_within
from iwlora.results.comparison.record import StoppingRule
from verdict_price.bank import OFFICIAL, STUDY, Array
from verdict_price.replay import Way
from verdict_price.search_regret import Search, Trials, search_once
from verdict_price.simulation import t_test

COMPARISONS = 500


@dataclass(frozen=True)
class SearchedVerdicts:
    """Shares of comparisons, the mean draws, and the mean trials of an arm.

    ``spread`` is the standard deviation of the difference between the arms that their learning
    rates make, in points; ``called_different`` of equal methods; ``right`` and ``opposite`` those
    that call the better arm better, and worse, where it is better by the planned difference.
    """

    spread: float
    called_different: float
    right: float
    opposite: float
    draws: float
    trials: float


def searched_verdicts(
    trials: Trials,
    search: Search,
    way: Way,
    limit: int,
    rule: StoppingRule,
    held_out: int,
    seed: int = 0,
) -> SearchedVerdicts:
    """Search and compare many times.

    Args:
        trials: The recorded ones, which are the draws of the comparison too.
        search: How each arm searches.
        way: How the verdict is reached.
        limit: The draws, or the most if they are added.
        rule: The difference in points, and the error.
        held_out: How many rows each trial is scored on.
        seed: Of the simulation.
    """
    rng = np.random.default_rng(seed)
    count, rows = len(trials.seeds), trials.study.shape[-1]
    places = np.log(trials.learning_rates)
    right = {
        split: 100 * np.where(np.isnan(scores), 0.5, scores > 0).mean(-1)
        for split, scores in ((STUDY, trials.study), (OFFICIAL, trials.official))
    }
    accuracy = PchipInterpolator(places, right[way.split])  # of each draw
    truth = PchipInterpolator(places, trials.truth(range(count), np.arange(rows)))
    differences, true, ran = [], [], 0
    for _ in range(COMPARISONS):
        order, chosen = rng.permutation(rows), []
        for arm in range(2):
            seen = rng.permutation(count)[: search.draws]
            held = order[arm * held_out : (arm + 1) * held_out]
            lr, cost = search_once(trials, search, seen.tolist(), held)
            chosen.append(math.log(lr or trials.grid[0]))
            ran += cost
        first = rng.integers(count, size=limit)
        second = (first + rng.integers(1, count, size=limit)) % count
        differences.append(accuracy(chosen[0])[first] - accuracy(chosen[1])[second])
        true.append(float(truth(chosen[0]) - truth(chosen[1])))
    none, draws = _called(np.array(differences), way, rule)
    planted, _ = _called(np.array(differences) + rule.difference, way, rule)
    return SearchedVerdicts(
        float(np.std(true)),
        float((none != 0).mean()),
        float((planted > 0).mean()),
        float((planted < 0).mean()),
        float(draws.mean()),
        ran / COMPARISONS / 2,
    )


def _called(differences: Array, way: Way, rule: StoppingRule) -> tuple[Array, Array]:
    """Of each comparison, 1 for "better", -1 for "worse" and 0 for neither; and its draws."""
    limit = differences.shape[-1]
    if not way.sequential:
        found = t_test(differences)[:, -1] <= rule.error
        return found * np.sign(differences.mean(-1)), np.full(len(differences), float(limit))
    decided, within = (
        p_difference(differences) <= rule.error,
        (p_within(differences, rule.difference) <= rule.error),
    )
    ended = decided | within
    last = np.where(ended.any(-1), ended.argmax(-1), limit - 1)
    at = np.arange(len(differences)), last
    return decided[at] * np.sign(differences.cumsum(-1)[at]), last + 1.0
