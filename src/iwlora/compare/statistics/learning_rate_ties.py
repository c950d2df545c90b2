"""What a search for learning rates could not tell apart, from what its trials predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iwlora.compare.statistics.analysis import predictions, score_differences
from iwlora.compare.statistics.bootstrap import resampled, variance
from iwlora.compare.statistics.paired_tests import paired_difference
from iwlora.results.comparison import Comparison
from iwlora.results.layout import trial_folder
from iwlora.results.run import Run, RunResult
from iwlora.results.search import LearningRateChoice

REPLICATES = 400
HELD_OUT = "validation"
"""The split under whose name a trial keeps what it predicts for the held-out training rows."""


def close_rates(comparison: Comparison, label: str) -> list[float]:
    """The learning rates of an arm that score within one standard error of the chosen one.

    With d the mean over trial seeds of score(chosen) - score(rate) on the held-out rows, those
    with d ≤ √Var d, as a bootstrap gives it over trial seeds and rows, or over the rows alone
    where there is one trial seed. Rates with a trial that failed, and those whose trials kept no
    predictions, are left out. Source: the one-standard-error rule of Breiman et al.,
    Classification and Regression Trees (1984), section 3.4.3.
    """
    choice = comparison.search[label]
    if choice.lr is None or choice.metric is None:
        return []
    chosen = f"{choice.lr:g}"
    trials = _trials(comparison, label, choice, choice.metric)
    scores = {rate: trials.values(rate, choice.metric) for rate in trials.arms}
    found = []
    for rate in trials.arms:
        if rate == chosen or chosen not in scores:
            continue
        pair = paired_difference(choice.metric, chosen, scores[chosen], rate, scores[rate])
        told = pair and predictions(trials, pair)
        if not pair or not told:
            continue
        differences = score_differences(trials, pair)
        spread = (
            variance(differences, told)
            if len(differences) > 1
            else float(resampled(told, REPLICATES).var(ddof=1))
        )
        if pair.summary.mean <= math.sqrt(spread):
            found.append(float(rate))
    return found


def undecided(comparison: Comparison) -> list[str]:
    """In a sentence, the rates that a search cannot tell from the chosen one; empty without any.

    What such arms score may be owed to the choice among these rates, and not to the method.
    """
    close = {label: close_rates(comparison, label) for label in comparison.search}
    told = [
        f"{label} {_listed(rates)} (chosen {comparison.search[label].lr:g})"
        for label, rates in close.items()
        if rates
    ]
    if not told:
        return []
    return [
        "Learning rates that score within one standard error of the chosen one, so that the "
        f"search cannot tell them apart: {'; '.join(told)}. More search.seeds or a larger "
        "search.holdout narrow it down"
    ]


def _trials(part: Comparison, label: str, choice: LearningRateChoice, metric: str) -> Comparison:
    """The search of one arm as a comparison of its own, whose arms are learning rates."""
    out = {trial.lr for trial in choice.trials if trial.state in ("failed", "diverged")}
    runs = tuple(
        Run(
            trial_folder(part.folder, label, trial.lr, trial.seed),
            RunResult.from_score(
                method=label,
                task=part.task,
                seed=trial.seed,
                metric=metric,
                score=trial.score,
                label=f"{trial.lr:g}",
                model=part.model,
                evaluated_on=HELD_OUT,
            ),
        )
        for trial in choice.trials
        if trial.state == "done" and trial.score is not None and trial.lr not in out
    )
    rates = tuple(dict.fromkeys(run.result.label for run in runs))
    seeds = tuple(dict.fromkeys(run.result.seed for run in runs))
    return Comparison(part.folder, part.model, part.task, rates, seeds, runs, ())


def _listed(rates: Sequence[float]) -> str:
    *before, last = [f"{rate:g}" for rate in rates]
    return f"{', '.join(before)} and {last}" if before else last
