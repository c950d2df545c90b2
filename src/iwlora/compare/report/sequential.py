"""Sequential verdicts in a report: the sentence of each arm, the table, and the price."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from iwlora.compare.number_format import (
    counted,
    format_difference,
    format_interval,
    format_p_value,
    format_size,
)
from iwlora.compare.report.caveats import describe_pairs
from iwlora.compare.statistics.analysis import Analysis, TaskAnalysis
from iwlora.compare.statistics.bootstrap import Interval
from iwlora.compare.statistics.differences import OverallDifference, TaskDifference
from iwlora.compare.statistics.paired_tests import Summary
from iwlora.compare.statistics.price import price_of
from iwlora.errors import listed
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.durations import format_duration
from iwlora.results.metric_direction import oriented, with_direction


def sequential_sentence(row: TaskDifference, rule: StoppingRule) -> str:
    """What is known of one arm, with its interval over all draws and looks.

    Args:
        row: The arm, whose ``sequential`` verdict is known.
        rule: What the comparison promises.
    """
    summary = row.summary
    numbers = _size(row.metric, summary) + f", {counted(summary.n, 'draw')}"
    arm, base = row.arm, row.baseline
    if row.outcome == "within":
        return f"{arm} is within {format_size(row.metric, rule.difference)} of {base}: {numbers}."
    if row.outcome != "open":
        decided = f"{arm} is {better_or_worse(row)} than {base}: {numbers}."
        return decided + _why_despite_interval(summary, row.p_adjusted)
    if summary.n < rule.max_seeds:
        end = "The same command goes on."
    else:
        end = f"All {rule.max_seeds} draws are used up; raise stop.max_seeds to go on."
    return f"{arm} and {base}: no verdict yet: {numbers}. {end}"


def better_or_worse(row: TaskDifference) -> str:
    """The direction of a mean difference in words."""
    return "better" if oriented(row.metric, row.summary.mean) > 0 else "worse"


def overall_sentence(row: OverallDifference, analysis: Analysis) -> str:
    """What is known of one arm over several tasks, from the draws that all tasks share."""
    rule, metric, base = analysis.rule, analysis.metric, analysis.baseline
    assert rule is not None
    if row.sequential is None or row.difference is None:
        return f"{row.arm} and {base}: the tasks have no common mean."
    numbers = f"over {counted(row.tasks, 'task')}: {_size(metric, row.difference)}"
    numbers += f", {counted(row.sequential.draws, 'draw')} that all tasks share"
    if row.outcome == "within":
        return f"{row.arm} is within {format_size(metric, rule.difference)} of {base} {numbers}."
    if row.outcome == "open":
        return f"{row.arm} and {base}: no verdict yet {numbers}."
    decided = f"{row.arm} is {row.sequential.outcome} than {base} {numbers}."
    return decided + _why_despite_interval(row.difference, row.p_adjusted)


def _why_despite_interval(difference: Summary | Interval, p: float | None) -> str:
    """A sentence where the interval of a decided arm has 0 in it; else nothing."""
    low, high = difference.low, difference.high
    if low is None or high is None or p is None or not low <= 0 <= high:
        return ""
    return (
        f" The test decided (p {format_p_value(p)}, corrected by Holm); the interval is wider, "
        "because it holds for all arms and looks at once."
    )


def sequential_verdict_over_tasks(analysis: Analysis) -> str:
    """The sentences of all arms over all tasks and on each, what is promised, and what ended what.

    The promises hold for the mean over tasks, and again for each task.
    """
    compared = [row for row in analysis.overall if row.pairs]
    first = next(row for task in analysis.tasks for row in task.differences)
    assert analysis.rule is not None
    on_tasks = []
    for task in analysis.tasks:
        rule = task.comparison.stop
        known = [f"{row.arm} is {_outcome(row, rule)}" for row in task.differences if rule]
        on_tasks += [f"On {task.comparison.task}: {'; '.join(known)}."] if known else []
    return " ".join(
        [
            *(overall_sentence(row, analysis) for row in compared),
            *on_tasks,
            WHAT_ENDS_WHAT,
            _promise(first.metric, analysis.rule),
            "This holds for the mean over tasks, and for each task by itself.",
        ]
    )


WHAT_ENDS_WHAT = (
    "The draws of a task end with its own verdicts; the verdict on the mean over tasks ends none."
)


def sequential_verdict(task: TaskAnalysis) -> str:
    """The sentences of all arms, what is promised, and what it cost."""
    rule, rows = task.comparison.stop, task.differences
    if rule is None or not rows:
        return ""
    sentences = [sequential_sentence(row, rule) for row in rows]
    return " ".join(
        [*sentences, _promise(rows[0].metric, rule), price_sentence(task.comparison, rows)]
    )


def sequential_table(task: TaskAnalysis) -> tuple[str, dict[str, list[str]]]:
    """(caption, columns) of the differences of a comparison with a rule ``stop``."""
    rule, rows = task.comparison.stop, task.differences
    assert rule is not None
    signed = partial(format_difference, rows[0].metric)
    columns = {
        "arm": [row.arm for row in rows],
        "draws": [str(row.summary.n) for row in rows],
        "mean ± sd": [signed(row.summary.mean, row.summary.sd) for row in rows],
        "interval at all looks": [_range(row.metric, row.summary) for row in rows],
        "p (no difference)": [
            format_p_value(row.sequential.p_difference) for row in rows if row.sequential
        ],
        f"p ({format_size(rows[0].metric, rule.difference)} or more)": [
            format_p_value(row.sequential.p_within) for row in rows if row.sequential
        ],
        "verdict": [_outcome(row, rule) for row in rows],
    }
    price = price_of(task.comparison, rows)
    if price is not None:
        arms = {arm.arm: arm for arm in price.arms}
        columns["training time"] = [format_duration(arms[row.arm].seconds) for row in rows]
        if price.core_hours is not None:
            hours = [arms[row.arm].core_hours for row in rows]
            columns[price.spent.unit] = ["–" if h is None else f"{h:,.2f}" for h in hours]
        columns["fixed seeds"] = [
            "–" if (n := arms[row.arm].fixed_seeds) is None else f"{n:,}" for row in rows
        ]
    caption = (
        f"Each arm's {with_direction(rows[0].metric)} minus that of {rows[0].baseline}, "
        f"{describe_pairs(task.comparison)}. Draws were added until each arm had a verdict. "
        f"{_promise(rows[0].metric, rule)} The intervals hold for all arms and looks together; the "
        "p-values are corrected by Holm and decide: an arm may be decided with 0 in its interval."
    )
    if price is not None:
        caption += (
            f" The last column is the fixed number of seeds with {rule.power:.0%} power at "
            f"{format_size(rows[0].metric, rule.difference)}."
        )
    return caption, columns


def price_sentence(comparison: Comparison, rows: Sequence[TaskDifference]) -> str:
    """What the draws cost, and what a fixed number of seeds with the same power would have.

    The fixed number has the power that was asked for at the difference that matters, by the t test
    with Holm's correction and the spread of each arm's differences.
    """
    rule, price = comparison.stop, price_of(comparison, rows)
    if rule is None or price is None:
        return ""
    spent, fixed = f"The {price.runs} runs took {price.spent}.", price.fixed
    if price.fixed_runs is None or fixed is None:
        return spent
    seeds = {arm.arm: arm.fixed_seeds for arm in price.arms if arm.arm != rows[0].baseline}
    each = listed([f"{n:,} seeds for {arm}" for arm, n in seeds.items()])
    if len(set(seeds.values())) == 1:
        each = f"{price.arms[0].fixed_seeds:,} seeds"
    where = ""
    if price.fixed_split != comparison.runs[0].result.evaluated_on:
        where = f" on the {price.fixed_split} split"
    at = format_size(rows[0].metric, rule.difference)
    return (
        f"{spent} With a fixed number of seeds, {rule.power:.0%} power at {at}{where} takes "
        f"{each}: {price.fixed_runs:,} runs, about {fixed}, "
        f"{fixed.seconds / price.seconds:.1f} times the time."
    )


def _promise(metric: str, rule: StoppingRule) -> str:
    return (
        f"With all looks and arms together, at most {rule.error:.0%} of such comparisons call a "
        f"difference that is not there, and at most {rule.error:.0%} call an arm within "
        f"{format_size(metric, rule.difference)} that is not."
    )


def _outcome(row: TaskDifference, rule: StoppingRule) -> str:
    if row.outcome == "within":
        return f"within {format_size(row.metric, rule.difference)}"
    return "no verdict yet" if row.outcome == "open" else better_or_worse(row)


def _size(metric: str, estimate: Summary | Interval) -> str:
    size = format_interval(metric, estimate.mean, None, None)
    return f"{size}, interval {_range(metric, estimate)}" if estimate.low is not None else size


def _range(metric: str, estimate: Summary | Interval) -> str:
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return "–"
    return f"{format_difference(metric, low)} to {format_difference(metric, high)}"
