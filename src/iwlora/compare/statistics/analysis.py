"""The analysis of a comparison: each arm against the baseline, on each task and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics import bootstrap, paired_tests
from iwlora.compare.statistics.differences import OverallDifference, TaskDifference
from iwlora.compare.statistics.paired_predictions import paired_predictions
from iwlora.compare.statistics.paired_tests import Summary
from iwlora.compare.statistics.sequential_analysis import overall_verdicts, task_verdicts
from iwlora.errors import IwloraError, unknown
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule, strictest
from iwlora.results.metric_direction import lower_is_better, oriented


@dataclass(frozen=True)
class TaskAnalysis:
    """The comparison on one task and the difference of each arm from the baseline."""

    comparison: Comparison
    differences: tuple[TaskDifference, ...]


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


def analyze(
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
            task_verdicts(comparison, rows, comparison.stop)
            if comparison.stop
            else tuple(islice(adjusted, len(rows))),
        )
        for comparison, rows in zip(comparisons, differences, strict=True)
    )
    overall = [_overall_difference(tasks, arm, base) for arm in _arms(comparisons)]
    analysis = Analysis(folder or comparisons[0].folder, base, tasks, _adjust_overall(overall))
    if (rule := analysis.rule) is None:
        return analysis
    pairs = [task.differences for task in tasks]
    return replace(analysis, overall=overall_verdicts(overall, pairs, base, rule))


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


def _share_scale(comparisons: Sequence[Comparison]) -> bool:
    metrics = {comparison.metrics[0] for comparison in comparisons}
    return len({(display_scale(metric), lower_is_better(metric)) for metric in metrics}) == 1


def _oriented_scores(comparison: Comparison, label: str) -> list[float]:
    """The scores of an arm with the sign that makes larger ones better."""
    metric = comparison.metrics[0] if comparison.metrics else ""
    return [oriented(metric, score) for score in comparison.scores(label).values()]


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
    return paired_tests.summarize(means) if means else None
