"""What does it cost? The second answer of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from iwlora.compare.number_format import format_gibibytes
from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.caveats import listed
from iwlora.compare.report.sequential import price_sentence
from iwlora.compare.statistics.analysis import Analysis
from iwlora.compare.statistics.budget_parity import is_unequal
from iwlora.results.durations import format_duration
from iwlora.results.run import RunResult

QUESTION = "What does it cost?"


@dataclass(frozen=True)
class Costs:
    """The mean costs of an arm's runs; None where they are not known."""

    seconds: float | None
    memory: float | None
    parameters: float | None

    @classmethod
    def of(cls, results: Sequence[RunResult]) -> Costs:
        return cls(
            _mean([result.total_seconds for result in results]),
            _mean([result.peak_memory_bytes for result in results]),
            _mean([result.trainable_parameters for result in results]),
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
    """Time, memory and trained parameters of each arm, relative to the baseline."""
    comparison = next(c for c in analysis.comparisons if c.runs)
    base = analysis.baseline
    costs = {label: Costs.of([r.result for r in comparison.of(label)]) for label in comparison.arms}
    reference = costs.get(base) or Costs(None, None, None)
    where = f" The costs are those of {comparison.task}." if len(analysis.tasks) > 1 else ""
    evidence = [f"{base}: {text}." if (text := reference.sentence()) else ""]
    for label, cost in costs.items():
        if label != base:
            relative = cost.against(reference)
            evidence.append(f"{label}: {relative or cost.sentence()}." if relative else "")
    evidence += [
        price_sentence(task.comparison, task.differences)
        for task in analysis.tasks
        if task.comparison.stop
    ]
    known = tuple(filter(None, evidence))
    if not known:
        return Answer(QUESTION, "Not known: these results have no times, memory or parameters.")
    return Answer(QUESTION, _short_cost(base, costs) + where, known)


def _short_cost(base: str, costs: dict[str, Costs]) -> str:
    reference = costs.get(base)
    if reference is None or not reference.seconds:
        return "The time is not known for all methods."
    ratios = {
        label: cost.seconds / reference.seconds
        for label, cost in costs.items()
        if label != base and cost.seconds
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
