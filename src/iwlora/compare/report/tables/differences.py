"""The differences of the arms from the baseline, on one task and over all tasks."""

from __future__ import annotations

from functools import partial

from iwlora.compare.number_format import format_difference, format_p_value, format_score
from iwlora.compare.report.caveats import describe_pairs
from iwlora.compare.report.sequential import WHAT_ENDS_WHAT, sequential_table
from iwlora.compare.report.tables.table import EMPTY, Table, known_text, range_text, text_with_range
from iwlora.compare.report.verdict import more_seeds, outcome_text
from iwlora.compare.statistics.analysis import Analysis, TaskAnalysis
from iwlora.results.metric_direction import with_direction


def difference_table(task: TaskAnalysis) -> Table:
    """Each arm minus the baseline on one task: intervals, p-values, verdicts."""
    differences = task.differences
    first = differences[0]
    if task.comparison.stop:
        caption, columns = sequential_table(task)
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        return Table(f"Differences from {first.baseline}", caption, list(columns), rows)
    signed = partial(format_difference, first.metric)
    columns = {
        "arm": [row.arm for row in differences],
        "paired seeds": [str(row.summary.n) for row in differences],
        "mean ± sd": [signed(row.summary.mean, row.summary.sd) for row in differences],
        "95% over seeds": [range_text(signed, row.summary) for row in differences],
    }
    caption = (
        f"Each arm's {with_direction(first.metric)} minus that of {first.baseline}, "
        f"{describe_pairs(task.comparison)}, with its 95% t interval over seeds"
    )
    saved = [row.interval.examples for row in differences]  # whether predictions were saved
    if any(saved):
        caption += " and a 95% interval over seeds and examples"
        caption += "" if all(saved) else " (of arms whose predictions were saved)"
        columns["95% over seeds and examples"] = [
            range_text(signed, row.interval) if row.interval.examples else EMPTY
            for row in differences
        ]
    caption += ". p is the p-value of a two-sided sign-flip test."
    columns["p"] = [format_p_value(row.p_value) for row in differences]
    if first.family > 1:
        caption += f" p (Holm) is corrected for {first.family} comparisons."
        columns["p (Holm)"] = [format_p_value(row.p_adjusted) for row in differences]
    caption += (
        " The last column says how many more seeds are needed for 80% power to detect a "
        "difference as large as the observed one."
    )
    columns["verdict"] = [outcome_text(row.outcome) for row in differences]
    columns["more seeds needed"] = [more_seeds(row) or EMPTY for row in differences]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table(f"Differences from {first.baseline}", caption, list(columns), rows)


def overall_table(analysis: Analysis) -> Table:
    """Each arm over all tasks: mean difference, interquartile mean, chance of improvement."""
    tasks = sum(1 for task in analysis.tasks if task.differences)
    scope = f"Over {tasks} tasks and their seeds" if tasks > 1 else "Over the seeds"
    resampled = "seeds and examples"
    if any(row.difference and not row.difference.examples for row in analysis.overall):
        resampled = "seeds, and over examples if all predictions were saved"
    test = "a sign-flip test over all pairs"
    interval = f"a 95% interval over {resampled}"
    if analysis.rule is not None:
        interval = "an interval that holds at all looks and arms together"
        test = "the sequential test"
        if tasks > 1:
            interval += ", from the draws that all tasks share"
    caption = (
        f"{scope}: the mean difference from {analysis.baseline} with {interval}; the p-value of "
        f"{test}, corrected by Holm for the "
        "number of arms; the interquartile mean of the scores; and the chance that a run of the "
        f"arm scores better than a run of {analysis.baseline}. The last two have 95% bootstrap "
        "intervals over seeds."
    )
    if analysis.rule is not None and tasks > 1:
        caption += f" {WHAT_ENDS_WHAT}"
    head = ["arm", "tasks", "pairs", f"difference from {analysis.baseline}", "p (Holm)", "verdict"]
    head += ["interquartile mean", "chance of improvement"]
    rows = [
        [
            row.arm,
            str(row.tasks),
            str(row.pairs) if row.pairs else EMPTY,
            text_with_range(partial(format_difference, analysis.metric), row.difference),
            known_text(format_p_value, row.p_adjusted),
            outcome_text(row.outcome) if row.pairs else EMPTY,
            text_with_range(partial(format_score, analysis.metric), row.interquartile_mean),
            text_with_range(lambda value: f"{100 * value:.0f}%", row.improvement),
        ]
        for row in analysis.overall
    ]
    title = "All tasks" if len(analysis.tasks) > 1 else "Over all seeds"
    return Table(title, caption, head, rows)
