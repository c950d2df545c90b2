"""The regret of a search: the accuracy that its learning rate loses against the best one.

The recorded trials are LoRA at each learning rate of a grid on common draws. A search sees some of
the draws, each scored on held-out rows that are chosen at random among the study rows. The truth is
the mean accuracy over the draws that it does not see, on the official rows and the other study
rows; between the recorded learning rates it is interpolated (PCHIP over the logarithm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iwlora.compare.plan.search.learning_rate import SearchSettings
from iwlora.compare.plan.search.rounds import search_rounds
from iwlora.compare.statistics.learning_rate.rules import find_rule
from iwlora.results.comparison.record import Trial
from verdict_price.bank import LORA, OFFICIAL, STUDY, Array, Bank, Rows

METRIC = "accuracy"


@dataclass(frozen=True)
class Search:
    """A rule, the most draws that it may use, and the most trials in whole grids."""

    rule: str
    draws: int
    grids: int


@dataclass(frozen=True)
class Regret:
    """In points of accuracy, over simulated searches; ``trials`` is the mean number that ran."""

    median: float
    mean: float
    largest_tenth: float
    trials: float


@dataclass(frozen=True)
class Trials:
    """Recorded trials: log-odds (learning rates, draws, rows) of the study and official rows.

    A search tries the learning rates of the ``grid``; the others are known for the truth alone.
    """

    grid: Sequence[float]
    learning_rates: Sequence[float]
    seeds: Sequence[int]
    study: Array
    official: Array
    labels: Array

    @classmethod
    def of(cls, bank: Bank, grid: Sequence[float]) -> Trials:
        """The draws that have a trial of each learning rate of the grid; diverged ones are NaN.

        Other learning rates count if they have trials in all of these draws.
        """
        numbers = {(run.lr, run.seed): n for n, run in enumerate(bank.runs) if run.arm == LORA}
        tried = sorted({lr for lr, _ in numbers})
        seeds = [
            seed
            for seed in sorted({seed for _, seed in numbers})
            if all((lr, seed) in numbers for lr in grid)
        ]
        if not seeds:
            return cls(grid, grid, [], *[np.empty((0, 0, 0))] * 3)
        known = [lr for lr in tried if all((lr, seed) in numbers for seed in seeds)]
        table = [[numbers[lr, seed] for seed in seeds] for lr in known]
        labels = bank.labels[STUDY].astype(float)
        study, official = (bank.scores[split][table] for split in (STUDY, OFFICIAL))
        return cls(grid, known, seeds, study, official, labels)

    def trial(self, lr: float, draw: int, rows: Rows) -> Trial:
        """A trial as a search sees it, scored on some of the study rows."""
        scores = self.study[self.learning_rates.index(lr), draw, rows]
        seed = self.seeds[draw]
        if np.isnan(scores).any():
            return Trial(lr=lr, seed=seed, state="diverged")
        labels = self.labels[rows]
        predicted = np.where(scores > 0, labels, 1 - labels)
        return Trial(
            lr=lr,
            seed=seed,
            state="done",
            score=float((scores > 0).mean()),
            loss=float(np.logaddexp(0, -scores).mean()),
            one_class=len(set(predicted)) == 1 < len(set(labels)),
        )

    def truth(self, draws: Sequence[int] | Rows, rows: Rows) -> Array:
        """The accuracy in points at each learning rate; a diverged run has half of the rows."""
        scores = np.concatenate([self.study[..., rows], self.official], -1)[:, draws]
        right = np.where(np.isnan(scores), 0.5, scores > 0)
        points: Array = 100 * right.mean((1, 2))
        return points


def accuracy_at(lr: float, learning_rates: Sequence[float], truth: Array) -> float:
    """The truth at any learning rate within the grid.

    >>> accuracy_at(1e-3, [1e-4, 1e-3, 1e-2], np.array([80.0, 85.0, 82.0]))
    85.0
    """
    from scipy.interpolate import PchipInterpolator

    return float(PchipInterpolator(np.log(learning_rates), truth)(math.log(lr)))


def search_once(
    trials: Trials, search: Search, draws: Sequence[int], held_out: Rows
) -> tuple[float | None, int]:
    """(the learning rate that a search chooses, None if no trial can be used; its trials)."""
    settings = SearchSettings(
        lr=list(trials.grid),
        seeds=[trials.seeds[draw] for draw in draws],
        rule=search.rule,
        widen=0,
    )
    found = [trials.trial(lr, draw, held_out) for lr in settings.lr for draw in draws]
    most = search.grids * len(settings.lr)
    asked = {*search_rounds(settings, settings.lr, found, most, METRIC).asked}
    ran = [trial for trial in found if (trial.lr, trial.seed) in asked]
    chosen = find_rule(search.rule).choose(ran, METRIC)
    return chosen.learning_rate if chosen else None, len(ran)


def simulate_searches(
    trials: Trials, search: Search, held_out: int, searches: int = 500, seed: int = 0
) -> Regret:
    """The regret of a rule over random draws and held-out rows.

    Args:
        trials: The recorded ones.
        search: The rule and what it may cost.
        held_out: How many rows each trial is scored on.
        searches: How many searches to simulate.
        seed: Equal seeds give two searches the same draws and rows.
    """
    rng = np.random.default_rng(seed)
    count, rows = len(trials.seeds), trials.study.shape[-1]
    regrets, used = [], []
    for _ in range(searches):
        order, drawn = rng.permutation(rows), rng.permutation(count)
        seen, held = drawn[: search.draws], order[:held_out]
        chosen, cost = search_once(trials, search, seen.tolist(), held)
        truth = trials.truth(drawn[search.draws :], order[held_out:])
        reached = float(truth.min())
        if chosen:
            reached = accuracy_at(chosen, trials.learning_rates, truth)
        regrets.append(float(truth.max()) - reached)
        used.append(cost)
    tenth = np.sort(regrets)[-max(1, searches // 10) :]
    return Regret(*map(float, (np.median(regrets), np.mean(regrets), tenth.mean(), np.mean(used))))
