"""What is known of each arm against the baseline, in sentences for the first screen."""

from __future__ import annotations

from dataclasses import dataclass

from iwlora.compare.number_format import counted, format_difference, format_interval
from iwlora.compare.report.sequential import (
    better_or_worse,
    overall_sentence,
    sequential_sentence,
)
from iwlora.compare.report.verdict import more_seeds, p_text
from iwlora.compare.statistics.analysis import Analysis
from iwlora.compare.statistics.bootstrap import Interval
from iwlora.compare.statistics.differences import OverallDifference, TaskDifference
from iwlora.compare.statistics.paired_tests import Summary
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.metric_direction import oriented


@dataclass(frozen=True)
class Finding:
    """What is known of one arm against the baseline.

    ``state`` is "better", "worse", "better on these rows", "worse on these rows", "none", "same",
    "within" (smaller than the difference that matters) or "open".
    """

    arm: str
    state: str
    sentence: str


def findings(analysis: Analysis) -> list[Finding]:
    """What is known of each arm against the baseline, over all tasks."""
    if len(analysis.tasks) == 1:
        task = analysis.tasks[0]
        if rule := task.comparison.stop:
            return [_sequential_finding(row, rule) for row in task.differences]
        return [_finding(row) for row in task.differences]
    overall = [row for row in analysis.overall if row.pairs]
    if analysis.rule is not None:
        return [_sequential_overall_finding(row, analysis) for row in overall]
    return [_overall_finding(row, analysis.metric) for row in overall]


def _finding(row: TaskDifference) -> Finding:
    arm, base, seeds = row.arm, row.baseline, counted(row.summary.n, "seed")
    if not any(row.differences.values()):
        return Finding(arm, "same", f"{arm} has exactly the score of {base} with {seeds}.")
    summary = row.summary
    size = size_text(row.metric, summary)
    more = more_seeds(row)
    settle = f" {_capital(more)} more seeds would settle a difference of this size." if more else ""
    if row.outcome == "open":
        return Finding(arm, "open", f"{arm} minus {base}: {size}, with {seeds}.{settle}")
    numbers = f"{size} ({p_text(row.p_adjusted)}, {seeds})"
    if row.outcome == "no difference found":
        zero = " The interval contains zero." if contains_zero(summary.low, summary.high) else ""
        return Finding(
            arm, "none", f"{arm} and {base}: no difference is shown: {numbers}.{zero}{settle}"
        )
    state = "better" if oriented(row.metric, summary.mean) > 0 else "worse"
    claim = f"{arm} is {state} than {base}: {numbers}."
    wide = row.interval
    if not (wide.examples and contains_zero(wide.low, wide.high)):
        return Finding(arm, state, claim)
    both = size_text(row.metric, wide)
    rows = f" About {row.rows_needed:,} scored rows would settle it." if row.rows_needed else ""
    return Finding(
        arm,
        f"{state} on these rows",
        f"{claim} This holds for these {row.rows:,} scored rows. With other rows the difference "
        f"may be zero: over seeds and rows it is {both}.{rows}",
    )


def _sequential_finding(row: TaskDifference, rule: StoppingRule) -> Finding:
    state = row.outcome if row.outcome in ("open", "within") else better_or_worse(row)
    return Finding(row.arm, state, sequential_sentence(row, rule))


def _sequential_overall_finding(row: OverallDifference, analysis: Analysis) -> Finding:
    state = row.sequential.outcome if row.sequential and row.difference else "open"
    return Finding(row.arm, state, overall_sentence(row, analysis))


def _overall_finding(row: OverallDifference, metric: str) -> Finding:
    interval, seeds = row.difference, counted(row.seeds, "seed")
    scope = f"over {counted(row.tasks, 'task')}"
    if interval is None or row.p_adjusted is None:
        return Finding(row.arm, "open", f"{row.arm}: the metrics of the tasks have no common mean.")
    size = size_text(metric, interval)
    missing = (row.seeds_needed or 0) - row.seeds
    settle = (
        f" About {missing:,} more seeds on every task would settle a difference of this size."
        if missing > 0
        else ""
    )
    if row.outcome == "open":
        return Finding(row.arm, "open", f"{row.arm}: {size}, {scope} with {seeds}.{settle}")
    numbers = f"{size}, {scope} ({p_text(row.p_adjusted)})"
    if row.outcome == "no difference found":
        return Finding(row.arm, "none", f"{row.arm}: no difference is shown: {numbers}.{settle}")
    state = "better" if oriented(metric, interval.mean) > 0 else "worse"
    rows = " on these rows" if contains_zero(interval.low, interval.high) else ""
    return Finding(row.arm, state + rows, f"{row.arm} is {state}{rows}: {numbers}.")


def size_text(metric: str, estimate: Summary | Interval) -> str:
    """A difference with its interval in words.

    >>> size_text("f1", Interval(0.0125, 0.002, 0.023, examples=False))
    '+1.25 points, 95% interval +0.20 to +2.30'
    """
    size = format_interval(metric, estimate.mean, None, None)
    if estimate.low is None or estimate.high is None:
        return size
    low, high = (format_difference(metric, end) for end in (estimate.low, estimate.high))
    return f"{size}, 95% interval {low} to {high}"


def contains_zero(low: float | None, high: float | None) -> bool:
    """Whether an interval is known and contains zero."""
    return low is not None and high is not None and low <= 0 <= high


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
