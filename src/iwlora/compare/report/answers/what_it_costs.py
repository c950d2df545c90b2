"""What does it cost? The second answer of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from iwlora.compare.number_format import format_gibibytes
from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.sequential import price_sentence
from iwlora.compare.report.tables.scores import memory_of_packs
from iwlora.compare.report.tables.table import EMPTY
from iwlora.compare.statistics.analysis import Analysis
from iwlora.compare.statistics.budget_parity import is_unequal
from iwlora.errors import listed
from iwlora.results.comparison import Comparison
from iwlora.results.durations import format_duration
from iwlora.results.run import RunResult

QUESTION = "What does it cost?"


@dataclass(frozen=True)
class Costs:
    """What an arm's runs of a task cost in the mean; None where it is not known."""

    seconds: float | None
    memory: float | None
    parameters: float | None

    @classmethod
    def of(cls, results: Sequence[RunResult]) -> Costs:
        return cls(
            _mean([result.total_seconds for result in results]),
            _mean([result.own_peak_memory_bytes for result in results]),
            _mean([result.trainable_parameters for result in results]),
        )

    @classmethod
    def of_tasks(cls, costs: Sequence[Costs]) -> Costs:
        """The sum of the times; the largest memory and the most parameters."""
        return cls(
            _known(sum, [cost.seconds for cost in costs]),
            _known(max, [cost.memory for cost in costs]),
            _known(max, [cost.parameters for cost in costs]),
        )

    def sentence(self) -> str:
        """All costs that are known; "" if none is."""
        texts = [
            f"{format_duration(self.seconds)} of training" if self.seconds else "",
            f"{format_gibibytes(self.memory)} of memory" if self.memory else "",
            f"{self.parameters:,.0f} trained parameters" if self.parameters else "",
        ]
        return ", ".join(filter(None, texts))

    def against(self, base: Costs) -> str:
        """The costs relative to those of the baseline; the amounts of those that differ."""
        amounts = {
            "time": (self.seconds, base.seconds, format_duration),
            "memory": (self.memory, base.memory, format_gibibytes),
            "parameters": (self.parameters, base.parameters, "{:,.0f}".format),
        }
        other, same = [], []
        for name, (own, reference, text) in amounts.items():
            if own and reference and is_unequal(own / reference):
                other.append(f"{own / reference:.2f} times the {name} ({text(own)})")
            elif own and reference:
                same.append(name)
        equal = [f"about the same {listed(same)}"] if same else []
        return "; ".join([*other, *equal])


def what_it_costs(analysis: Analysis) -> Answer:
    """Time, memory and trained parameters of each arm, relative to the baseline.

    Over several tasks, each arm is compared on those that it and the baseline were trained on.
    """
    base, tasks = analysis.baseline, [each for each in analysis.comparisons if each.runs]
    labels = dict.fromkeys(label for comparison in tasks for label in comparison.arms)
    of_arms = {label: _costs_by_task(tasks, label) for label in labels}
    of_base = of_arms.pop(base, {})
    reference = Costs.of_tasks([*of_base.values()])
    evidence = [f"{base}: {text}." if (text := reference.sentence()) else ""]
    pairs = dict[str, tuple[Costs, Costs]]()
    for label, by_task in of_arms.items():
        both = by_task.keys() & of_base.keys()
        own, beside = (Costs.of_tasks([side[n] for n in both]) for side in (by_task, of_base))
        pairs[label] = own, beside
        of_all = "" if len(both) == len(tasks) else f" (on {len(both)} of {len(tasks)} tasks)"
        if relative := own.against(beside):
            evidence.append(f"{label}{of_all}: {relative}.")
    evidence += [text for task in tasks if (text := _packed_memory(task))]
    for task in analysis.tasks:
        if task.comparison.stop and (price := price_sentence(task.comparison, task.differences)):
            evidence.append(f"{task.comparison.task}: {price}" if len(tasks) > 1 else price)
    known = tuple(filter(None, evidence))
    if not known:
        return Answer(QUESTION, "Not known: these results have no times, memory or parameters.")
    short = _short_cost(base, reference, pairs)
    if len(tasks) > 1:
        short += (
            f" The time is the sum over the {len(tasks)} tasks; memory and parameters are the "
            "largest."
        )
    return Answer(QUESTION, short, known)


def _packed_memory(comparison: Comparison) -> str:
    """The memory of runs that were trained together, which is not that of one of them."""
    packed = [run.result for run in comparison.runs if run.result.other_runs]
    if (text := memory_of_packs(packed)) == EMPTY:
        return ""
    labels = listed(list(dict.fromkeys(result.label for result in packed)))
    return f"Peak memory of {labels}, which were trained together: {text}."


def _costs_by_task(tasks: Sequence[Comparison], label: str) -> dict[int, Costs]:
    """{number of the task: what an arm cost there}, of the tasks where it has runs."""
    runs = {number: task.of(label) for number, task in enumerate(tasks)}
    return {n: Costs.of([run.result for run in found]) for n, found in runs.items() if found}


def _short_cost(base: str, reference: Costs, pairs: Mapping[str, tuple[Costs, Costs]]) -> str:
    if not reference.seconds:
        return "The time is not known for all methods."
    ratios = {
        label: cost.seconds / beside.seconds
        for label, (cost, beside) in pairs.items()
        if cost.seconds and beside.seconds
    }
    if not ratios:
        return f"{base} trains for {format_duration(reference.seconds)}."
    if not any(is_unequal(ratio) for ratio in ratios.values()):
        return f"About the same time as {base}."
    if len(ratios) == 1:
        ((label, ratio),) = ratios.items()
        return f"{label} takes {ratio:.2f} times as long as {base}."
    slow, fast = max(ratios, key=ratios.__getitem__), min(ratios, key=ratios.__getitem__)
    return (
        f"{slow} takes {ratios[slow]:.2f} times as long as {base}; "
        f"{fast} takes {ratios[fast]:.2f} times as long."
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _known(
    combine: Callable[[Sequence[float]], float], values: Sequence[float | None]
) -> float | None:
    """A number for all tasks; None if it is not known of each."""
    known = [value for value in values if value is not None]
    return combine(known) if known and len(known) == len(values) else None
