"""Learning rates that a search cannot tell from the chosen one, given its trials' predictions."""

from __future__ import annotations

import math

from iwlora.compare.statistics.bootstrap import bootstrap_differences, variance_of_mean
from iwlora.compare.statistics.paired_predictions import paired_predictions
from iwlora.compare.statistics.paired_tests import paired_difference
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import LOST
from iwlora.results.layout import learning_rate_text, trial_folder
from iwlora.results.metric_direction import oriented
from iwlora.results.run import Run, RunResult

REPLICATES = 400
HELD_OUT = "validation"
"""The split under whose name a trial saves its predictions of the held-out training rows."""


def tied_learning_rates(comparison: Comparison, label: str) -> list[float]:
    """The learning rates of an arm that score within one standard error of the chosen one.

    With d the mean over trial seeds of score(chosen) - score(rate) on the held-out rows (of the
    negated scores where lower is better), these are the rates with d ≤ √Var d. The variance comes
    from a bootstrap over trial seeds and rows, or over the rows alone if there is one trial seed.
    Rates with a failed trial and rates whose trials saved no predictions are left out.

    Source:
        The one-standard-error rule of Breiman et al., Classification and Regression Trees (1984),
        section 3.4.3.
    """
    choice = comparison.search[label]
    if choice.lr is None or choice.metric is None:
        return []
    chosen = learning_rate_text(choice.lr)
    trials = _trials(comparison, label, choice.metric)
    best = trials.scores(chosen)
    ties = []
    for rate in [rate for rate in trials.arms if rate != chosen]:
        pair = paired_difference(choice.metric, chosen, best, rate, trials.scores(rate))
        predictions = pair and paired_predictions(trials, pair)
        if not pair or not predictions:
            continue
        if pair.summary.n > 1:
            variance = variance_of_mean([*pair.differences.values()], predictions)
        else:
            variance = float(bootstrap_differences(predictions, REPLICATES).var(ddof=1))
        if oriented(choice.metric, pair.summary.mean) <= math.sqrt(variance):
            ties.append(float(rate))
    return ties


def _trials(comparison: Comparison, label: str, metric: str) -> Comparison:
    """The search of one arm as a comparison of its own, whose arms are learning rates."""
    choice = comparison.search[label]
    failed = {trial.lr for trial in choice.trials if trial.state in LOST}
    runs = tuple(
        Run(
            trial_folder(comparison.folder, label, trial.lr, trial.seed),
            RunResult.from_score(
                method=label,
                task=comparison.task,
                seed=trial.seed,
                metric=metric,
                score=trial.score,
                label=learning_rate_text(trial.lr),
                model=comparison.model,
                evaluated_on=HELD_OUT,
            ),
        )
        for trial in choice.trials
        if trial.state == "done" and trial.score is not None and trial.lr not in failed
    )
    rates = tuple(dict.fromkeys(run.result.label for run in runs))
    seeds = tuple(dict.fromkeys(run.result.seed for run in runs))
    return Comparison(comparison.folder, comparison.model, comparison.task, rates, seeds, runs, ())
