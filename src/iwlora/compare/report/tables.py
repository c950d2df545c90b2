"""The tables of a report, as text: scores and costs, differences, learning rates, runs, overall."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from iwlora.compare.number_format import (
    format_difference,
    format_gibibytes,
    format_p_value,
    format_score,
)
from iwlora.compare.report.caveats import describe_fairness, describe_pairs, describe_scoring
from iwlora.compare.report.sequential import WHAT_ENDS_WHAT, sequential_table
from iwlora.compare.report.verdict import more_seeds, outcome_text
from iwlora.compare.statistics.analysis import Analysis, TaskAnalysis
from iwlora.compare.statistics.bootstrap import Aggregate, Interval
from iwlora.compare.statistics.budget_parity import budget_ratios, is_unequal
from iwlora.compare.statistics.floors import mean_floors
from iwlora.compare.statistics.paired_tests import Summary, summarize
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import LOST, LearningRateChoice
from iwlora.results.durations import format_duration
from iwlora.results.layout import learning_rate_text, options_text
from iwlora.results.metric_direction import with_direction
from iwlora.results.run import RunResult, SiteRank

EMPTY = "–"
_count = "{:,.0f}".format


@dataclass(frozen=True)
class Table:
    """A table of text: a title, a caption, a head, and rows whose first cell names the row."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[str]]


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
        if self.field == "peak_memory_bytes":
            return result.own_peak_memory_bytes
        value: float | None = getattr(result, self.field)
        return value

    def mean(self, results: Sequence[RunResult]) -> str:
        """The mean over runs as text; a count that differs between runs is shown as a range."""
        known = [value for result in results if (value := self.of(result)) is not None]
        if not known:
            return memory_of_packs(results) if self.field == "peak_memory_bytes" else EMPTY
        if self.format is _count and min(known) < max(known):
            return f"{_count(min(known))}–{_count(max(known))}"
        return self.format(fmean(known))


COSTS = (
    Cost("trainable_parameters", "trainable parameters", _count),
    Cost("adapter_parameters", "adapter parameters", _count),
    Cost("train_seconds", "training time", format_duration),
    Cost("measure_seconds", "measuring time", format_duration),
    Cost("examples_per_second", "examples/s", "{:,.1f}".format),
    Cost("peak_memory_bytes", "peak memory", format_gibibytes),
    Cost("train_examples", "training rows", _count),
)


def memory_of_packs(results: Sequence[RunResult]) -> str:
    """The largest peak of a process that trained several runs, and how many these were."""
    packed = [result for result in results if result.other_runs]
    known = [(r.peak_memory_bytes, r.other_runs + 1) for r in packed if r.peak_memory_bytes]
    if not known:
        return EMPTY
    size, runs = max(known)
    return f"{format_gibibytes(size)} ({runs} runs)"


def score_table(comparison: Comparison) -> Table:
    """Each arm's scores as mean ± standard deviation over seeds, and its costs; then the floors."""
    known = [run.result for run in comparison.runs]
    costs = [cost for cost in COSTS if cost.mean(known) != EMPTY]
    if len({result.train_examples for result in known}) == 1:
        costs = [cost for cost in costs if cost.field != "train_examples"]
    ratios = budget_ratios(comparison)
    rows = []
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        finished, planned = len(results), len(comparison.seeds)
        if comparison.stop:  # draws that no verdict needs were not planned
            planned = finished + sum(arm == label for arm, _, _ in comparison.missing)
        row = [label, str(finished) if finished == planned else f"{finished} of {planned}"]
        row += [score_text(comparison, label, metric) for metric in comparison.metrics]
        mark = " ≠" if is_unequal(ratios.get(label, 1.0)) else ""
        for cost in costs:
            row.append(cost.mean(results) + (mark if cost.field == "adapter_parameters" else ""))
        rows.append(row)
    for floor in mean_floors(known):
        scores = [
            _known(partial(format_score, m), floor.metrics.get(m)) for m in comparison.metrics
        ]
        rows.append([f"{floor.name} (floor)", EMPTY, *scores, *(EMPTY for _ in costs)])
    head = ["arm", "seeds", *comparison.metrics, *(cost.title for cost in costs)]
    return Table("Results", describe_scoring(comparison), head, rows)


def score_text(comparison: Comparison, label: str, metric: str) -> str:
    """The score of an arm as mean ± standard deviation over seeds."""
    values = [*comparison.values(label, metric).values()]
    if not values:
        return EMPTY
    summary = summarize(values)
    return format_score(metric, summary.mean, summary.sd)


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
        "95% over seeds": [_range(signed, row.summary) for row in differences],
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
            _range(signed, row.interval) if row.interval.examples else EMPTY for row in differences
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
            _with_range(partial(format_difference, analysis.metric), row.difference),
            _known(format_p_value, row.p_adjusted),
            outcome_text(row.outcome) if row.pairs else EMPTY,
            _with_range(partial(format_score, analysis.metric), row.interquartile_mean),
            _with_range(lambda value: f"{100 * value:.0f}%", row.improvement),
        ]
        for row in analysis.overall
    ]
    title = "All tasks" if len(analysis.tasks) > 1 else "Over all seeds"
    return Table(title, caption, head, rows)


def learning_rate_table(comparison: Comparison) -> Table:
    """The learning rate of each arm, how the search found it, and what it took."""
    choices = comparison.search
    metric = next((choice.metric for choice in choices.values() if choice.metric), "score")
    columns = {
        "arm": [*choices],
        "learning rate": [_known(learning_rate_text, choice.lr) for choice in choices.values()],
        "options": [options_text(choice.options) or EMPTY for choice in choices.values()],
        "95% interval": [_learning_rate_range(choice) for choice in choices.values()],
        "optimum": [
            "inside the grid" if choice.inside else "not bracketed" for choice in choices.values()
        ],
        "trials": [
            f"{sum(trial.state == 'done' for trial in choice.trials)} of {len(choice.trials)}"
            for choice in choices.values()
        ],
        "training steps": [_known(_count, choice.steps) for choice in choices.values()],
        "time": [
            format_duration(sum(trial.seconds or 0.0 for trial in choice.trials))
            for choice in choices.values()
        ],
        f"loss, {metric} (draws) on held-out training rows": [
            "; ".join(_tried(choice, metric)) for choice in choices.values()
        ],
    }
    caption = (
        "The search for each arm's learning rate. Its trials are scored on held-out training rows, "
        f"never on the reported data. {describe_fairness(choices)}"
    )
    if comparison.vary:
        caption += (
            f" Arms that differ in {', '.join(comparison.vary)} may have other held-out rows: "
            "their scores in the search do not compare."
        )
    for unknown in [name for name, cells in columns.items() if {*cells} == {EMPTY}]:
        del columns[unknown]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table("Learning rates", caption, list(columns), rows)


def _learning_rate_range(choice: LearningRateChoice) -> str:
    if choice.low is None or choice.high is None:
        return EMPTY
    return f"{learning_rate_text(choice.low)} to {learning_rate_text(choice.high)}"


def _tried(choice: LearningRateChoice, metric: str) -> Iterator[str]:
    """What each learning rate reached on average over its draws, and why it could not win."""
    begun = [trial for trial in choice.trials if trial.state != "not begun"]
    tried = sorted({(options_text(trial.options), trial.lr) for trial in begun})
    for options, lr in tried:
        trials = [t for t in begun if (options_text(t.options), t.lr) == (options, lr)]
        done = [trial for trial in trials if trial.state == "done"]
        losses = [trial.loss for trial in done if trial.loss is not None]
        means = [f"{fmean(losses):.3f}"] if losses else []
        if scores := [trial.score for trial in done if trial.score is not None]:
            means.append(f"{format_score(metric, fmean(scores))} ({len(scores)})")
        marks: list[str] = [state for state in LOST if any(t.state == state for t in trials)]
        marks += ["one answer"] * any(trial.one_class for trial in done)
        marks += ["added"] * (lr in choice.added)
        name = f"{options} {learning_rate_text(lr)}".strip()
        yield f"{name}: {', '.join([*means, *marks])}"


def run_table(comparison: Comparison) -> Table:
    """Every finished run in a row."""
    train_time = next(cost for cost in COSTS if cost.field == "train_seconds")
    head = ["arm", "seed", *comparison.metrics, "learning rate", "rank", "epochs"]
    head += ["training examples", train_time.title]
    rows = []
    for result in (run.result for run in comparison.runs):
        row = [result.label, str(result.seed)]
        for metric in comparison.metrics:
            row.append(_known(partial(format_score, metric), result.metrics.get(metric)))
        row.append(_known(learning_rate_text, result.learning_rate))
        row += [_known("{:g}".format, setting) for setting in (result.rank, result.epochs)]
        row += [_known(_count, result.train_examples), train_time.mean([result])]
        rows.append(row)
    return Table("Runs", "Every finished run.", head, rows)


def size_table(comparison: Comparison) -> Table | None:
    """The parts of each layer of each mixture, with their sizes; None if there is no mixture."""
    rows: list[list[str]] = []
    for label in comparison.arms:
        layers: dict[str, dict[str, list[SiteRank]]] = {}
        for run in comparison.of(label):
            for part in run.result.ranks:
                if part.parameters is not None:
                    layers.setdefault(part.name, {}).setdefault(part.kind, []).append(part)
        for layer, parts in layers.items():
            sizes = ", ".join(f"{kind}{_sizes(same)}" for kind, same in parts.items())
            counts = (fmean(part.parameters or 0 for part in same) for same in parts.values())
            rows.append([label, layer, sizes, _count(sum(counts))])
    caption = (
        "The parts of each layer with their sizes: rank, bottleneck or number of prefix tokens; "
        "means of the parameters where seeds differ."
    )
    head = ["arm", "layer", "parts", "parameters"]
    return Table("Sizes of mixtures", caption, head, rows) if rows else None


def _sizes(same: Sequence[SiteRank]) -> str:
    """The size of a part, or the smallest and the largest over seeds; nothing for biases."""
    known = [part.rank for part in same if part.rank is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f" {low:g}" if low == high else f" {low:g} to {high:g}"


def _known(text: Callable[[float], str], value: float | None) -> str:
    return EMPTY if value is None else text(value)


def _range(text: Callable[[float], str], interval: Summary | Interval | Aggregate) -> str:
    if interval.low is None or interval.high is None:
        return EMPTY
    return f"{text(interval.low)} to {text(interval.high)}"


def _with_range(text: Callable[[float], str], estimate: Interval | Aggregate | None) -> str:
    if estimate is None:
        return EMPTY
    value = text(estimate.mean if isinstance(estimate, Interval) else estimate.value)
    return value if estimate.low is None else f"{value} [{_range(text, estimate)}]"
