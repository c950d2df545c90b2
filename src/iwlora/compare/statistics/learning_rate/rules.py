"""The rules by which a search chooses a learning rate from its trials: ``search.rule``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from statistics import fmean

import numpy as np

from iwlora.compare.statistics.learning_rate.curve import (
    Array,
    Optimum,
    clearly_worse,
    curve_minimum,
)
from iwlora.errors import IwloraError, unknown
from iwlora.results.comparison.record import LOST, Trial
from iwlora.results.metric_direction import oriented

GROUP = "iwlora.search_rules"
"""The entry points with which an installed package adds a rule."""


def loss_curve(trials: Sequence[Trial], metric: str | None = None) -> Optimum | None:
    """The minimum of a smooth curve of the held-out loss over the learning rate.

    All draws together give the curve (:func:`curve_minimum`). A learning rate of which any trial
    failed, diverged or gave all rows the same answer cannot win; if all of them did the latter,
    that is no reason. Where a task has no loss, the score takes its place; where only some trials
    have none, theirs was not finite, and they have failed.

    Args:
        trials: Those of one arm.
        metric: The name of the score, which says whether a higher or a lower one is better; None:
            a higher one.

    Returns:
        None if no learning rate can win.

    Example:
        >>> losses = ((1e-4, 0.6), (1e-3, 0.4), (1e-2, 0.6))
        >>> trials = [Trial(lr=lr, seed=7, state="done", score=0.5, loss=y) for lr, y in losses]
        >>> loss_curve(trials).learning_rate
        0.001
    """
    learning_rates = sorted({trial.lr for trial in trials if trial.state != "not begun"})
    trials = fail_without_loss(trials)
    out = cannot_win(trials)
    if not set(learning_rates) - out:
        return None
    losses = loss_table(trials, learning_rates, metric)
    losses[:, [lr in out for lr in learning_rates]] = math.nan
    return curve_minimum(learning_rates, losses)


def best_score(trials: Sequence[Trial], metric: str | None = None) -> Optimum | None:
    """The learning rate with the best mean score; of equals, that with the lowest loss.

    Scores and losses are averaged over the draws. A learning rate that failed or diverged in any
    draw is out. Arguments and result are those of :func:`loss_curve`.

    Example:
        >>> scores = ((1e-4, 0.6), (1e-3, 0.8), (1e-2, 0.7))
        >>> trials = [Trial(lr=lr, seed=7, state="done", score=score) for lr, score in scores]
        >>> best_score(trials).learning_rate
        0.001
    """
    failed = {trial.lr for trial in trials if trial.state in LOST}
    ranks: dict[float, tuple[float, float, float]] = {}
    for lr in sorted({trial.lr for trial in trials if trial.state == "done"} - failed):
        done = [trial for trial in trials if trial.lr == lr and trial.state == "done"]
        score = fmean(trial.score for trial in done if trial.score is not None)
        loss = fmean(math.inf if trial.loss is None else trial.loss for trial in done)
        ranks[lr] = (oriented(metric or "", score), -loss, -lr)
    if not ranks:
        return None
    best = max(ranks, key=ranks.__getitem__)
    tried = sorted({trial.lr for trial in trials if trial.state != "not begun"})
    edge = "smallest" if best == tried[0] else "largest" if best == tried[-1] else None
    return Optimum(best, None, None, edge)


@dataclass(frozen=True)
class Rule:
    """How a search chooses, and whether it decides from its trials which others it needs.

    If ``adaptive``, learning rates that are clearly worse get no further draws, and the grid is
    widened if the best is at its edge. Else every learning rate of the grid gets every draw.
    """

    choose: Callable[[Sequence[Trial], str | None], Optimum | None]
    adaptive: bool = True


RULES: dict[str, Rule] = {
    "loss-curve": Rule(loss_curve),
    "best-score": Rule(best_score, adaptive=False),
}
"""The rules of iwlora."""
DEFAULT_RULE = "loss-curve"
FORMER_RULE = "best-score"
"""The rule of searches that do not name one because they are older."""


def find_rule(name: str) -> Rule:
    """The rule of a name: one of iwlora, or one of an installed package.

    Raises:
        IwloraError: There is none, or what a package declares is not a :class:`Rule`.
    """
    if name in RULES:
        return RULES[name]
    points = {point.name: point for point in entry_points(group=GROUP)}  # reads all packages
    if name not in points:
        raise unknown("search.rule", name, [*RULES, *points])
    rule = points[name].load()
    if not isinstance(rule, Rule):
        raise IwloraError(
            f"search.rule={name}: {points[name].value} of an installed package is no "
            f"{__name__}.Rule; repair or uninstall the package"
        )
    return rule


def fail_without_loss(trials: Sequence[Trial]) -> list[Trial]:
    """The trials; if some have a loss, those that are done without one have failed.

    Their loss was not finite. All trials whose losses are compared must be given at once.
    """
    if all(trial.loss is None for trial in trials):
        return [*trials]
    infinite = {"state": "failed"}
    return [
        trial.model_copy(update=infinite) if trial.state == "done" and trial.loss is None else trial
        for trial in trials
    ]


def cannot_win(trials: Sequence[Trial]) -> set[float]:
    """The learning rates of which a trial failed, diverged or gave all rows the same answer.

    If no other is left, those with the same answer for all rows can win: nothing else was learned.
    """
    failed = {trial.lr for trial in trials if trial.state in LOST}
    one_class = {trial.lr for trial in trials if trial.one_class}
    done = {trial.lr for trial in trials if trial.state == "done"}
    return failed | one_class if done - failed - one_class else failed


def loss_table(
    trials: Sequence[Trial], learning_rates: Sequence[float], metric: str | None = None
) -> Array:
    """(draws, learning rates): the loss of each trial that is done, NaN where there is none.

    Where no trial has a loss (:func:`fail_without_loss`), each has its score, with the sign that
    makes a lower one better.
    """
    done = {(trial.seed, trial.lr): trial for trial in trials if trial.state == "done"}
    scored = all(trial.loss is None for trial in done.values())

    def value(trial: Trial | None) -> float:
        found = None if trial is None else trial.score if scored else trial.loss
        if found is None:
            return math.nan
        return -oriented(metric or "", found) if scored else found

    seeds = dict.fromkeys(trial.seed for trial in trials)
    return np.array([[value(done.get((seed, lr))) for lr in learning_rates] for seed in seeds])


def left_over(
    trials: Sequence[Trial], learning_rates: Sequence[float], metric: str | None = None
) -> list[float]:
    """The learning rates that need another draw: those that may still be the best.

    Left out are those that cannot win (:func:`cannot_win`), and those that are clearly worse than
    the best one by a paired test on the draws that they share (:func:`clearly_worse`).
    """
    trials = fail_without_loss(trials)
    out = cannot_win(trials)
    rest = [lr for lr in learning_rates if lr not in out]
    losses = loss_table(trials, rest, metric)
    paired = losses[np.isfinite(losses).all(1)]
    if not len(paired):
        return rest
    return [lr for lr, worse in zip(rest, clearly_worse(paired), strict=True) if not worse]
