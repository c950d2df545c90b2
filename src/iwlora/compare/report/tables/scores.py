"""The scores and the costs of each arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from iwlora.compare.number_format import format_gibibytes, format_score
from iwlora.compare.report.caveats import describe_scoring
from iwlora.compare.report.tables.table import EMPTY, Table, count_text, known_text
from iwlora.compare.statistics.budget_parity import budget_ratios, is_unequal
from iwlora.compare.statistics.floors import mean_floors
from iwlora.compare.statistics.paired_tests import summarize
from iwlora.results.comparison import Comparison
from iwlora.results.durations import format_duration
from iwlora.results.run import RunResult


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
        if self.format is count_text and min(known) < max(known):
            return f"{count_text(min(known))}–{count_text(max(known))}"
        return self.format(fmean(known))


COSTS = (
    Cost("trainable_parameters", "trainable parameters", count_text),
    Cost("adapter_parameters", "adapter parameters", count_text),
    Cost("train_seconds", "training time", format_duration),
    Cost("measure_seconds", "measuring time", format_duration),
    Cost("examples_per_second", "examples/s", "{:,.1f}".format),
    Cost("peak_memory_bytes", "peak memory", format_gibibytes),
    Cost("train_examples", "training rows", count_text),
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
            known_text(partial(format_score, m), floor.metrics.get(m)) for m in comparison.metrics
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
