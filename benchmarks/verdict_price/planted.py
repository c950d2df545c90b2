"""Comparisons whose truth is known, made from recorded pairs of runs.

There are two kinds of pairs without a true difference. *Other start*: LoRA twice in each draw, with
the same rows, order and head, and other initial values of A. Such arms are as alike as arms can be.
*Independent*: LoRA in one draw and LoRA in another, which share nothing. In both kinds the arms are
exchangeable, so each pair may be swapped: the truth is 0, whatever rows were scored. A planted
difference corrects or spoils predictions of one arm on random rows of each draw, until its accuracy
has changed by exactly that much.

Draws beyond the recorded ones are resampled from the pairs, each swapped with probability 1/2.
Rows are not resampled: all draws of a comparison share its rows, so what rows add to a difference
is in the recorded ones, and would count twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from verdict_price.bank import LORA, OTHER_START, Array, Bank

MOST_RUNS = 24


@dataclass(frozen=True)
class Pairs:
    """Log-odds of the true class (draws, rows) of an arm and of the baseline, paired by draw.

    The variance of their differences is known with so many degrees of ``freedom``.
    """

    arm: Array
    baseline: Array
    freedom: int

    def swapped(self) -> Pairs:
        """The baseline as the arm."""
        return Pairs(self.baseline, self.arm, self.freedom)

    def differences(self) -> Array:
        """Accuracy of the arm minus that of the baseline, in points, of each draw."""
        right = (self.arm > 0).mean(-1) - (self.baseline > 0).mean(-1)
        points: Array = 100 * right
        return points


def recorded_pairs(
    bank: Bank,
    split: str,
    lr: float,
    arm: str = OTHER_START,
    baseline: str = LORA,
    arm_lr: float | None = None,
) -> Pairs:
    """The draws of which both arms have scores; ``arm_lr``: that of the arm, if not ``lr``."""
    ours, theirs = bank.of_arm(arm, arm_lr or lr), bank.of_arm(baseline, lr)
    shared = [seed for seed in ours if seed in theirs]
    scores = bank.scores.get(split, np.full((len(bank.runs), 1), np.nan))
    pairs = [scores[[numbers[seed] for seed in shared]] for numbers in (ours, theirs)]
    known = ~np.isnan(pairs[0]).any(-1) & ~np.isnan(pairs[1]).any(-1)
    return Pairs(pairs[0][known], pairs[1][known], int(known.sum()))


def independent_pairs(bank: Bank, split: str, lr: float) -> Pairs:
    """Pairs of draws of LoRA that share nothing, of at most ``MOST_RUNS`` draws."""
    runs = [*bank.of_arm(LORA, lr).values()]
    scores = bank.scores.get(split, np.full((len(bank.runs), 1), np.nan))[runs]
    known = scores[~np.isnan(scores).any(-1)][:MOST_RUNS]
    numbers = np.array([*combinations(range(len(known)), 2)], dtype=int).reshape(-1, 2)
    return Pairs(known[numbers[:, 0]], known[numbers[:, 1]], max(0, len(known) - 1))


NULLS: dict[str, Callable[[Bank, str, float], Pairs]] = {
    "other start": recorded_pairs,
    "independent": independent_pairs,
}
"""The kinds of pairs without a true difference."""


def with_planted(scores: Array, points: float, rng: np.random.Generator) -> Array:
    """Scores whose accuracy is higher by ``points`` in each draw, lower if they are negative.

    Predictions of random rows are corrected, or spoiled: the sign of their log-odds changes. Where
    the difference is no whole number of rows, a draw has one row more or less at random, and the
    mean over draws is exact.

    Args:
        scores: (draws, rows) log-odds of the true class.
        points: The true difference.
        rng: Chooses the rows.

    Raises:
        ValueError: A draw has too few wrong or right predictions.
    """
    planted: Array = scores.copy()
    exact = abs(points) / 100 * scores.shape[1]
    for row in planted:
        count = int(exact) + int(rng.random() < exact % 1)
        candidates = np.flatnonzero(row <= 0 if points > 0 else row > 0)
        if len(candidates) < count:
            raise ValueError(f"{points} points cannot be planted: {len(candidates)} rows are left")
        chosen = rng.choice(candidates, count, replace=False)
        row[chosen] = np.copysign(np.maximum(np.abs(row[chosen]), 1e-3), points)
    return planted


def planted_differences(pairs: Pairs, points: float, rng: np.random.Generator) -> Array:
    """The differences (2, draws) of both orders of the arms, with a truth of ``points``."""
    return np.stack(
        [
            replace(order, arm=with_planted(order.arm, points, rng)).differences()
            for order in (pairs, pairs.swapped())
        ]
    )


def resampled(differences: Array, comparisons: int, draws: int, rng: np.random.Generator) -> Array:
    """(comparisons, draws) differences, drawn from ``planted_differences`` with replacement."""
    pool = differences.ravel()
    return pool[rng.integers(len(pool), size=(comparisons, draws))]
