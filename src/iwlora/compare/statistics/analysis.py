"""The analysis of a comparison: each arm against the baseline, on each task and overall."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics import bootstrap, paired_tests
from iwlora.compare.statistics.bootstrap import Aggregate, Interval, PairedPredictions
from iwlora.compare.statistics.paired_tests import MIN_SEEDS, PairedDifference, Summary
from iwlora.compare.statistics.sequential import Verdict, verdicts
from iwlora.errors import IwloraError, unknown
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule, strictest
from iwlora.results.metric_direction import lower_is_better, oriented


@dataclass(frozen=True, kw_only=True)
class TaskDifference(PairedDifference):
    """One arm against the baseline on one task.

    ``variance`` is that of the mean difference, ``interval`` covers seeds and examples, ``rows``
    are the scored rows that were resampled, 0 without saved predictions. In a comparison with a
    rule ``stop`` there is a ``sequential`` verdict; the interval of ``summary`` and the p-values
    then hold at all looks together.
    """

    variance: float
    interval: Interval
    rows: int = 0
    sequential: Verdict | None = None

    @property
    def outcome(self) -> str:
        """As for any pair; of a sequential verdict also ``within`` the difference that matters."""
        if self.sequential is None:
            return super().outcome
        return _outcome_of(self.sequential, self.summary)

    @property
    def rows_needed(self) -> int | None:
        """The scored rows with which ``interval`` would leave out zero, if the mean stays.

        None if no number of rows can do that, or if the rows are not known.
        """
        if self.interval.high is None or self.summary.sd is None or not self.rows:
            return None
        return bootstrap.rows_needed(
            self.summary.mean,
            self.variance,
            self.summary.sd**2 / self.summary.n,
            self.interval.high - self.interval.mean,
            self.rows,
        )


@dataclass(frozen=True)
class TaskAnalysis:
    """The comparison on one task and the difference of each arm from the baseline."""

    comparison: Comparison
    differences: tuple[TaskDifference, ...]


@dataclass(frozen=True)
class OverallDifference:
    """One arm against the baseline over all tasks on which the two share seeds.

    ``difference`` is the mean over tasks of the mean over seeds; None if the metrics of the tasks
    have different scales, or if higher is better on one task and lower on another. ``p_value``
    belongs to the sign-flip test over all (task, seed) pairs. ``p_adjusted`` is corrected by Holm
    for the ``family`` arms that are compared. ``interquartile_mean`` and ``improvement``, the
    chance of a better score, follow Agarwal et al. 2021. Where a comparison has a rule ``stop``,
    there is a ``sequential`` verdict on the mean over tasks, from the draws that all tasks share;
    ``difference`` and the p-values are then its own, and hold at all looks together.
    """

    arm: str
    tasks: int
    pairs: int = 0
    seeds: int = 0
    """The smallest number of shared seeds on any task."""
    difference: Interval | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    interquartile_mean: Aggregate | None = None
    improvement: Aggregate | None = None
    by_seed: Summary | None = None
    """Of the mean over tasks of each seed that all tasks share; None for different scales."""
    family: int = 1
    sequential: Verdict | None = None

    @property
    def outcome(self) -> str:
        """ "open" with fewer than 6 seeds on a task or with too few pairs, else as for a task."""
        if self.sequential is not None:
            return _outcome_of(self.sequential, self.difference)
        if self.seeds < MIN_SEEDS or self.p_adjusted is None or self.difference is None:
            return "open"
        mean = self.difference.mean
        return paired_tests.describe_outcome(self.pairs, mean, self.p_adjusted, self.family)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds on every task for 80% power to detect a mean as large as that of ``by_seed``."""
        return paired_tests.seeds_needed(self.by_seed, self.family) if self.by_seed else None


@dataclass(frozen=True)
class Analysis:
    """One comparison per task, and what their runs show together."""

    folder: Path
    baseline: str
    tasks: tuple[TaskAnalysis, ...]
    overall: tuple[OverallDifference, ...]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparison of each task."""
        return tuple(task.comparison for task in self.tasks)

    @property
    def metric(self) -> str:
        """The primary metric of the first task with a finished run; "score" without one."""
        return next((c.metrics[0] for c in self.comparisons if c.runs), "score")

    @property
    def rule(self) -> StoppingRule | None:
        """The strictest rule ``stop`` of the comparisons; None without any."""
        return strictest(comparison.stop for comparison in self.comparisons)

    @property
    def finished(self) -> bool:
        """Whether any run has finished."""
        return any(comparison.runs for comparison in self.comparisons)


def analyse(
    comparisons: Sequence[Comparison], folder: Path | None = None, baseline: str | None = None
) -> Analysis:
    """Compare every arm with the baseline on every task.

    With fixed seeds, all arms and tasks are one family of tests. With a rule ``stop`` the arms of
    each task are one, and those of the mean over tasks another: a task ends with its own verdicts.

    Args:
        comparisons: One comparison per task.
        folder: The folder of the report; by default that of the first comparison.
        baseline: The label of the baseline; by default the one that the comparisons name, else
            :func:`~iwlora.compare.statistics.paired_tests.default_baseline`.

    Raises:
        IwloraError: No arm has the name of the baseline, or the comparisons name different ones.
    """
    base = _choose_baseline(comparisons, baseline)
    comparisons = [replace(comparison, baseline=base) for comparison in comparisons]
    differences = [_task_differences(c, base, number) for number, c in enumerate(comparisons)]
    fixed = [rows for c, rows in zip(comparisons, differences, strict=True) if c.stop is None]
    adjusted = iter(paired_tests.adjust([row for rows in fixed for row in rows]))
    tasks = tuple(
        TaskAnalysis(
            comparison,
            _sequential(comparison, rows, comparison.stop)
            if comparison.stop
            else tuple(islice(adjusted, len(rows))),
        )
        for comparison, rows in zip(comparisons, differences, strict=True)
    )
    overall = [_overall_difference(tasks, arm, base) for arm in _arms(comparisons)]
    analysis = Analysis(folder or comparisons[0].folder, base, tasks, _adjust_overall(overall))
    if (rule := analysis.rule) is None:
        return analysis
    return replace(analysis, overall=_sequential_overall(overall, tasks, base, rule))


def _arms(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arm for comparison in comparisons for arm in comparison.arms))


def _choose_baseline(comparisons: Sequence[Comparison], requested: str | None) -> str:
    arms = _arms(comparisons)
    if requested is not None:
        if requested not in arms:
            raise unknown("baseline", requested, arms)
        return requested
    named = sorted({c.baseline for c in comparisons if c.baseline in arms if c.baseline})
    if len(named) > 1:
        raise IwloraError(
            f"the comparisons have different baselines, {' and '.join(named)}; "
            f"choose one, such as --baseline {named[0]}"
        )
    return named[0] if named else paired_tests.default_baseline(arms)


def _task_differences(comparison: Comparison, base: str, number: int) -> list[TaskDifference]:
    """The differences on task ``number``, which seeds the bootstrap; p-values are uncorrected."""
    rows = []
    for label in [label for label in comparison.arms if label != base and comparison.runs]:
        scores, baseline = comparison.scores(label), comparison.scores(base)
        pair = paired_tests.paired_difference(comparison.metrics[0], label, scores, base, baseline)
        if pair:
            by_seed = [*pair.differences.values()]
            predictions = paired_predictions(comparison, pair)
            variance = bootstrap.variance_of_mean(by_seed, predictions, seed=number)
            interval = bootstrap.mean_over_tasks([by_seed], [variance], predictions is not None)
            scored = len(predictions.labels) if predictions else 0
            rows.append(
                TaskDifference(**vars(pair), variance=variance, interval=interval, rows=scored)
            )
    return rows


def _sequential(
    comparison: Comparison, rows: Sequence[TaskDifference], rule: StoppingRule
) -> tuple[TaskDifference, ...]:
    """The differences with their sequential verdicts, in the order of the seeds."""
    paths: dict[str, list[float]] = {
        arm: [] for arm in comparison.arms if arm != comparison.baseline
    }
    paths |= {row.arm: _as_printed(row.metric, row.differences.values()) for row in rows}
    found = verdicts(paths, rule)
    return tuple(_with_verdict(row, found[row.arm], len(paths)) for row in rows)


def _with_verdict(row: TaskDifference, verdict: Verdict, family: int) -> TaskDifference:
    summary, p = _at_all_looks(row.summary, verdict, row.metric), verdict.p_difference
    return replace(row, summary=summary, p_value=p, p_adjusted=p, family=family, sequential=verdict)


def _at_all_looks(summary: Summary, verdict: Verdict, metric: str) -> Summary:
    """The summary with the interval of a verdict, which holds at all looks together."""
    if verdict.low is None or verdict.high is None:
        return replace(summary, low=None, high=None)
    half = (verdict.high - verdict.low) / 2 / display_scale(metric)
    return replace(summary, low=summary.mean - half, high=summary.mean + half)


def _outcome_of(verdict: Verdict, estimate: Summary | Interval | None) -> str:
    """ "higher" or "lower" for a difference that is there, else "within" or "open"."""
    if verdict.outcome not in ("better", "worse") or estimate is None:
        return "open" if estimate is None else verdict.outcome
    return "higher" if estimate.mean > 0 else "lower"


def _as_printed(metric: str, values: Iterable[float]) -> list[float]:
    """Differences as they are printed (in points), larger ones better."""
    return [oriented(metric, value) * display_scale(metric) for value in values]


def paired_predictions(comparison: Comparison, pair: PairedDifference) -> PairedPredictions | None:
    """What both arms predicted with the shared seeds; None if it does not reproduce the scores.

    The positive class of F1 is the one that reproduces the scores.
    """
    if pair.metric not in bootstrap.METRICS:
        return None
    by_key = {(run.result.label, run.result.seed): run for run in comparison.runs}
    runs = [by_key[label, seed] for label in (pair.arm, pair.baseline) for seed in pair.differences]
    saved = [rows for run in runs if (rows := run.predictions)]
    if len(saved) < len(runs) or any(labels != saved[0][0] for labels, _ in saved):
        return None
    classes = [saved[0][0], *(predictions for _, predictions in saved)]
    names, inverse = np.unique(classes, return_inverse=True)
    ids = inverse.reshape(1 + len(runs), -1)
    expected = [run.result.metrics[pair.metric] for run in runs]
    for positive in range(len(names) if pair.metric == "f1" else 1):
        both_arms = ids[1:].reshape(2, len(pair.differences), -1)
        paired = PairedPredictions(pair.metric, ids[0], both_arms, len(names), positive)
        scores = paired.scores(np.ones((len(ids[0]), 1)))
        if np.allclose(scores.ravel(), expected, atol=1e-6):
            return paired
    return None


def _overall_difference(tasks: Sequence[TaskAnalysis], arm: str, base: str) -> OverallDifference:
    scored = [task.comparison for task in tasks if task.comparison.scores(arm)]
    scores = [[*comparison.scores(arm).values()] for comparison in scored]
    middle = bootstrap.interquartile_mean(scores) if _share_scale(scored) else None
    shared = [
        (task.comparison, row) for task in tasks for row in task.differences if row.arm == arm
    ]
    if not shared:
        return OverallDifference(arm, len(scores), interquartile_mean=middle)
    comparisons = [comparison for comparison, _ in shared]
    one_scale = _share_scale(comparisons)
    by_task = [[*row.differences.values()] for _, row in shared]
    variances = [row.variance for _, row in shared]
    examples = all(row.interval.examples for _, row in shared)
    difference = bootstrap.mean_over_tasks(by_task, variances, examples)
    p_value = paired_tests.sign_flip_p(
        [oriented(row.metric, value) for _, row in shared for value in row.differences.values()]
    )
    return OverallDifference(
        arm,
        len(shared),
        pairs=sum(map(len, by_task)),
        seeds=min(map(len, by_task)),
        difference=difference if one_scale else None,
        p_value=p_value,
        interquartile_mean=middle,
        improvement=bootstrap.probability_of_improvement(
            [_oriented_scores(comparison, arm) for comparison in comparisons],
            [_oriented_scores(comparison, base) for comparison in comparisons],
        ),
        by_seed=_summary_by_seed([row.differences for _, row in shared]) if one_scale else None,
    )


def _mean_path(rows: Sequence[TaskDifference]) -> list[float]:
    """The mean over tasks of each draw that all share, as printed, larger ones better, in order."""
    by_seed = [
        dict(zip(row.differences, _as_printed(row.metric, row.differences.values()), strict=True))
        for row in rows
    ]
    shared = [seed for seed in by_seed[0] if all(seed in task for task in by_seed)] if rows else []
    return [fmean(task[seed] for task in by_seed) for seed in shared]


def _share_scale(comparisons: Sequence[Comparison]) -> bool:
    metrics = {comparison.metrics[0] for comparison in comparisons}
    return len({(display_scale(metric), lower_is_better(metric)) for metric in metrics}) == 1


def _oriented_scores(comparison: Comparison, label: str) -> list[float]:
    """The scores of an arm with the sign that makes larger ones better."""
    metric = comparison.metrics[0] if comparison.metrics else ""
    return [oriented(metric, score) for score in comparison.scores(label).values()]


def _sequential_overall(
    overall: Sequence[OverallDifference],
    tasks: Sequence[TaskAnalysis],
    base: str,
    rule: StoppingRule,
) -> tuple[OverallDifference, ...]:
    """The same differences with verdicts on the mean over tasks that hold at all looks."""
    by_arm: dict[str, list[TaskDifference]] = {}
    for pair in (pair for task in tasks for pair in task.differences):
        by_arm.setdefault(pair.arm, []).append(pair)
    paths = {row.arm: _mean_path(by_arm.get(row.arm, [])) for row in overall if row.arm != base}
    found = verdicts(paths, rule)
    return tuple(
        _with_overall_verdict(row, found[row.arm], len(paths), by_arm[row.arm][0].metric)
        if row.arm in found
        else replace(row, difference=None)
        for row in overall
    )


def _with_overall_verdict(
    row: OverallDifference, verdict: Verdict, family: int, metric: str
) -> OverallDifference:
    interval = None
    if row.difference is not None and row.by_seed is not None:
        summary = _at_all_looks(row.by_seed, verdict, metric)
        interval = Interval(summary.mean, summary.low, summary.high, examples=False)
    p = verdict.p_difference
    return replace(
        row, difference=interval, p_value=p, p_adjusted=p, family=family, sequential=verdict
    )


def _adjust_overall(overall: Sequence[OverallDifference]) -> tuple[OverallDifference, ...]:
    """The same differences with Holm's correction for the number of tested arms."""
    tested = {row.arm: row.p_value for row in overall if row.p_value is not None}
    adjusted = dict(zip(tested, paired_tests.holm([*tested.values()]), strict=True))
    return tuple(
        replace(row, p_adjusted=adjusted.get(row.arm), family=len(tested)) for row in overall
    )


def _summary_by_seed(tasks: Sequence[Mapping[int, float]]) -> Summary | None:
    """Of the means over tasks of the seeds that all tasks share."""
    shared = [seed for seed in tasks[0] if all(seed in task for task in tasks)]
    means = [fmean(task[seed] for task in tasks) for seed in shared]
    return paired_tests.summarise(means) if means else None
