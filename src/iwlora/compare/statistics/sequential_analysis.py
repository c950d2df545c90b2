"""The verdicts of comparisons with a rule ``stop``, which hold at all looks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from iwlora.compare.number_format import as_printed, display_scale
from iwlora.compare.statistics.bootstrap import Interval
from iwlora.compare.statistics.differences import OverallDifference, TaskDifference
from iwlora.compare.statistics.paired_tests import Summary
from iwlora.compare.statistics.sequential import Verdict, verdicts
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule


def task_verdicts(
    comparison: Comparison, rows: Sequence[TaskDifference], rule: StoppingRule
) -> tuple[TaskDifference, ...]:
    """The differences with their sequential verdicts, in the order of the seeds."""
    paths: dict[str, list[float]] = {
        arm: [] for arm in comparison.arms if arm != comparison.baseline
    }
    for row in rows:
        paths[row.arm] = [as_printed(row.metric, value) for value in row.differences.values()]
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


def overall_verdicts(
    overall: Sequence[OverallDifference],
    tasks: Sequence[Sequence[TaskDifference]],
    base: str,
    rule: StoppingRule,
) -> tuple[OverallDifference, ...]:
    """The same differences with verdicts on the mean over tasks that hold at all looks."""
    by_arm: dict[str, list[TaskDifference]] = {}
    for pair in (pair for task in tasks for pair in task):
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


def _mean_path(rows: Sequence[TaskDifference]) -> list[float]:
    """The mean over tasks of each draw that all share, as printed, larger ones better, in order."""
    by_seed = [
        {seed: as_printed(row.metric, value) for seed, value in row.differences.items()}
        for row in rows
    ]
    shared = [seed for seed in by_seed[0] if all(seed in task for task in by_seed)] if rows else []
    return [fmean(task[seed] for task in by_seed) for seed in shared]
