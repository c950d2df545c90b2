"""The tables of a report, as text: scores and costs, differences, learning rates, runs, overall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iwlora.compare.number_format import (
    format_difference,
    format_duration,
    format_gibibytes,
    format_p_value,
    format_score,
)
from iwlora.compare.report.caveats import describe_scoring
from iwlora.compare.report.verdict import more_seeds, outcome_text
from iwlora.compare.statistics.analysis import Analysis, TaskDifference
from iwlora.compare.statistics.bootstrap import Aggregate, Interval
from iwlora.compare.statistics.budget_parity import budget_ratios, is_unequal
from iwlora.compare.statistics.paired_tests import Summary, outcome, summarise
from iwlora.results.comparison import Comparison
from iwlora.results.run import RunResult

EMPTY = "–"


@dataclass(frozen=True)
class Table:
    """A table of text: a title, a caption, a head, and rows whose first cell names the row."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[str]]


def _count(number: float) -> str:
    return f"{number:,.0f}"


@dataclass(frozen=True)
class Cost:
    """A cost of a run: its field in the result, the title of its column and its format."""

    field: str
    title: str
    format: Callable[[float], str]

    def of(self, result: RunResult) -> float | None:
        """The cost of a run; None if it is unknown."""
        if self.field == "train_seconds" and result.resumed_at_step:
            return None
        value: float | None = getattr(result, self.field)
        return value

    def mean(self, results: Sequence[RunResult]) -> str:
        """The mean over runs as text; a count that differs between runs is shown as a range."""
        known = [value for result in results if (value := self.of(result)) is not None]
        if not known:
            return EMPTY
        if self.format is _count and min(known) < max(known):
            return f"{_count(min(known))}–{_count(max(known))}"
        return self.format(sum(known) / len(known))


COSTS = (
    Cost("trainable_parameters", "trainable parameters", _count),
    Cost("adapter_parameters", "adapter parameters", _count),
    Cost("train_seconds", "training time", format_duration),
    Cost("measure_seconds", "measuring time", format_duration),
    Cost("examples_per_second", "examples/s", lambda number: f"{number:,.1f}"),
    Cost("peak_memory_bytes", "peak memory", format_gibibytes),
)


def score_table(comparison: Comparison) -> Table:
    """Each arm's scores as mean ± standard deviation over seeds, and its costs if known."""
    costs = [
        cost for cost in COSTS if any(cost.of(run.result) is not None for run in comparison.runs)
    ]
    ratios = budget_ratios(comparison)
    rows = []
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        finished, planned = len(results), len(comparison.seeds)
        row = [label, str(finished) if finished == planned else f"{finished} of {planned}"]
        row += [score_text(comparison, label, metric) for metric in comparison.metrics]
        mark = " ≠" if is_unequal(ratios.get(label, 1.0)) else ""
        for cost in costs:
            row.append(cost.mean(results) + (mark if cost.field == "adapter_parameters" else ""))
        rows.append(row)
    head = ["arm", "seeds", *comparison.metrics, *(cost.title for cost in costs)]
    return Table("Results", describe_scoring(comparison), head, rows)


def score_text(comparison: Comparison, label: str, metric: str) -> str:
    """The score of an arm as mean ± standard deviation over seeds."""
    values = list(comparison.values(label, metric).values())
    summary = summarise(values) if values else None
    return format_score(metric, summary.mean, summary.sd) if summary else EMPTY


def difference_table(differences: Sequence[TaskDifference]) -> Table:
    """Each arm minus the baseline on one task: intervals, p-values, verdicts."""
    metric, baseline = differences[0].paired.metric, differences[0].paired.baseline
    family = differences[0].paired.family
    saved = [row.interval.examples for row in differences]  # whether predictions were saved
    columns: dict[str, Callable[[TaskDifference], str]] = {
        "arm": lambda row: row.paired.arm,
        "paired seeds": lambda row: str(row.paired.summary.n),
        "mean ± sd": lambda row: _mean_and_sd(metric, row.paired.summary),
        "95% over seeds": lambda row: _range(
            metric, row.paired.summary.low, row.paired.summary.high
        ),
    }
    caption = (
        f"Each arm's {metric} minus that of {baseline}, paired by seed, with its 95% t interval "
        "over seeds"
    )
    if any(saved):
        caption += " and a 95% interval over seeds and examples"
        caption += "" if all(saved) else " (of arms whose predictions were saved)"
        columns["95% over seeds and examples"] = lambda row: (
            _range(metric, row.interval.low, row.interval.high) if row.interval.examples else EMPTY
        )
    caption += ". p is the p-value of a two-sided sign-flip test."
    columns["p"] = lambda row: format_p_value(row.paired.p_value)
    if family > 1:
        caption += f" p (Holm) is corrected for {family} comparisons."
        columns["p (Holm)"] = lambda row: format_p_value(row.paired.p_adjusted)
    caption += (
        " The last column says how many more seeds are needed for 80% power to detect a "
        "difference as large as the observed one."
    )
    columns["verdict"] = lambda row: outcome_text(outcome(row.paired))
    columns["more seeds needed"] = lambda row: more_seeds(row.paired) or EMPTY
    rows = [[text(row) for text in columns.values()] for row in differences]
    return Table(f"Differences from {baseline}", caption, list(columns), rows)


def overall_table(analysis: Analysis) -> Table:
    """Each arm over all tasks: mean difference, interquartile mean, chance of improvement."""
    tasks = sum(1 for task in analysis.tasks if task.differences)
    scope = f"Over {tasks} tasks and their seeds" if tasks > 1 else "Over the seeds"
    intervals = [row.difference for row in analysis.overall if row.difference]
    resampled = "seeds and examples"
    if not all(interval.examples for interval in intervals):
        resampled = "seeds, and over examples if all predictions were saved"
    caption = (
        f"{scope}: the mean difference from {analysis.baseline} with a 95% interval over "
        f"{resampled}; the p-value of a sign-flip test over all pairs, corrected by Holm for the "
        "number of arms; the interquartile mean of the scores; and the chance that a run of the "
        f"arm scores higher than a run of {analysis.baseline}. The last two have 95% bootstrap "
        "intervals over seeds."
    )
    metric = next((c.metrics[0] for c in analysis.comparisons if c.runs), "score")
    head = ["arm", "tasks", "pairs", f"difference from {analysis.baseline}", "p (Holm)", "verdict"]
    head += ["interquartile mean", "chance of improvement"]
    rows = [
        [
            row.arm,
            str(row.tasks),
            str(row.pairs) if row.pairs else EMPTY,
            _difference(metric, row.difference),
            EMPTY if row.p_adjusted is None else format_p_value(row.p_adjusted),
            outcome_text(row.outcome) if row.pairs else EMPTY,
            _aggregate(row.interquartile_mean, lambda value: format_score(metric, value)),
            _aggregate(row.improvement, lambda value: f"{100 * value:.0f}%"),
        ]
        for row in analysis.overall
    ]
    title = "All tasks" if len(analysis.tasks) > 1 else "Over all seeds"
    return Table(title, caption, head, rows)


def learning_rate_table(comparison: Comparison) -> Table:
    """The learning rate of each arm and how the search found it."""
    metrics = (choice.metric for choice in comparison.search.values())
    metric = next(filter(None, metrics), "score")
    rows = []
    for label, choice in comparison.search.items():
        finished = [trial for trial in choice.trials if trial.state == "done"]
        scores: dict[float, list[float]] = {}
        for trial in finished:
            scores.setdefault(trial.lr, []).append(trial.score or 0.0)
        rows.append(
            [
                label,
                EMPTY if choice.lr is None else f"{choice.lr:g}",
                "inside the grid" if choice.inside else "not bracketed",
                f"{len(finished)} of {len(choice.trials)}",
                format_duration(sum(trial.seconds or 0.0 for trial in choice.trials)),
                "; ".join(
                    f"{lr:g}: {format_score(metric, sum(values) / len(values))}"
                    for lr, values in scores.items()
                ),
            ]
        )
    caption = (
        "The search for each arm's learning rate. Every arm gets equally many trials. They are "
        "scored on held-out training rows, never on the reported data."
    )
    head = ["arm", "learning rate", "optimum", "trials", "time"]
    head.append(f"{metric} on held-out training rows")
    return Table("Learning rates", caption, head, rows)


def run_table(comparison: Comparison) -> Table:
    """Every finished run in a row."""
    train_time = next(cost for cost in COSTS if cost.field == "train_seconds")
    head = ["arm", "seed", *comparison.metrics, "learning rate", "rank", "epochs"]
    head += ["training examples", train_time.title]
    rows = []
    for result in (run.result for run in comparison.runs):
        row = [result.label, str(result.seed)]
        for metric in comparison.metrics:
            score = result.metrics.get(metric)
            row.append(EMPTY if score is None else format_score(metric, score))
        for value in (result.learning_rate, result.rank, result.epochs):
            row.append(EMPTY if value is None else f"{value:g}")
        row.append(EMPTY if result.train_examples is None else _count(result.train_examples))
        rows.append([*row, train_time.mean([result])])
    return Table("Runs", "Every finished run.", head, rows)


def _mean_and_sd(metric: str, summary: Summary) -> str:
    mean = format_difference(metric, summary.mean)
    return mean if summary.sd is None else f"{mean} ± {format_score(metric, summary.sd)}"


def _range(metric: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return EMPTY
    return f"{format_difference(metric, low)} to {format_difference(metric, high)}"


def _difference(metric: str, interval: Interval | None) -> str:
    if interval is None:
        return EMPTY
    mean = format_difference(metric, interval.mean)
    if interval.low is None:
        return mean
    return f"{mean} [{_range(metric, interval.low, interval.high)}]"


def _aggregate(aggregate: Aggregate | None, text: Callable[[float], str]) -> str:
    if aggregate is None:
        return EMPTY
    if aggregate.low is None or aggregate.high is None:
        return text(aggregate.value)
    return f"{text(aggregate.value)} [{text(aggregate.low)} to {text(aggregate.high)}]"
