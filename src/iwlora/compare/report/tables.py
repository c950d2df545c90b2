"""Comparisons as tables of text: scores, costs and differences, for every kind of report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iwlora.compare.number_format import (
    format_difference,
    format_duration,
    format_gibibytes,
    format_score,
)
from iwlora.compare.report.caveats import scoring
from iwlora.compare.report.verdict import (
    headline,
    incomplete,
    more_seeds,
    needed,
    overall_headline,
    overall_outcome,
)
from iwlora.compare.statistics import paired_tests
from iwlora.compare.statistics.analysis import Analysis, Compared
from iwlora.compare.statistics.bootstrap import Aggregate, Interval
from iwlora.compare.statistics.budget_parity import budgets, unequal
from iwlora.results.comparison import Comparison
from iwlora.results.run import RunResult

NONE = "–"


@dataclass(frozen=True)
class Table:
    """A head, rows of text whose first cell names them, and what the table says."""

    title: str
    head: list[str]
    rows: list[list[str]]
    caption: str


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _rate(number: float) -> str:
    return f"{number:,.1f}"


# Field of a result, its column head, the short head for a terminal, and how it is told.
COSTS: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    ("trainable_parameters", "trainable parameters", "trainable", _count),
    ("adapter_parameters", "adapter parameters", "adapter", _count),
    ("train_seconds", "training time", "training", format_duration),
    ("measure_seconds", "measuring time", "measuring", format_duration),
    ("examples_per_second", "examples/s", "examples/s", _rate),
    ("peak_memory_bytes", "peak memory", "memory", format_gibibytes),
)
_TERMINAL_WIDTH = 100


def known(result: RunResult, field: str) -> float | None:
    if field in ("train_seconds", "examples_per_second") and result.resumed_at_step:
        return None
    value: float | None = getattr(result, field)
    return value


def _cost(results: Sequence[RunResult], field: str, tell: Callable[[float], str]) -> str:
    """The mean over runs; a count that differs between runs is shown as a range."""
    found = [value for result in results if (value := known(result, field)) is not None]
    if not found:
        return NONE
    if tell is _count and min(found) < max(found):
        return f"{tell(min(found))}–{tell(max(found))}"
    return tell(sum(found) / len(found))


def table(comparison: Comparison) -> Table:
    """The main table: scores as mean ± sd over seeds, then what they cost where it is known."""
    costs = [
        c for c in COSTS if any(known(run.result, c[0]) is not None for run in comparison.runs)
    ]
    head = ["arm", "seeds", *comparison.metrics, *(title for _, title, _, _ in costs)]
    ratios = budgets(comparison)
    rows = []
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        done, planned = len(results), len(comparison.seeds)
        row = [label, str(done) if done == planned else f"{done} of {planned}"]
        for metric in comparison.metrics:
            values = list(comparison.values(label, metric).values())
            found = paired_tests.summarise(values) if values else None
            row.append(format_score(metric, found.mean, found.sd) if found else NONE)
        mark = " ≠" if unequal(ratios.get(label, 1.0)) else ""
        rows.append(
            row
            + [
                _cost(results, field, tell) + (mark if field == "adapter_parameters" else "")
                for field, _, _, tell in costs
            ]
        )
    return Table("Results", head, rows, scoring(comparison))


def differences(part: Comparison, compared: Sequence[Compared]) -> Table:
    """Each arm against the baseline on one task: intervals, p-values, what they say."""
    base = compared[0].pair.baseline if compared else ""
    family = compared[0].pair.family if compared else 1
    holm = f", and corrected by Holm for {family} comparisons" if family > 1 else ""
    caption = (
        f"{part.metrics[0]} minus that of {base}, paired by seed: mean, its 95% t interval over "
        f"seeds, the 95% interval that counts the {_examples(compared)}, and the p-value of a "
        f"two-sided sign-flip test{holm}. The seeds that are needed find a difference as large as "
        "the observed one 4 times in 5."
    )
    head = ["arm", "paired seeds", "mean ± sd", "95% over seeds", "95% over seeds and examples"]
    head += ["p", *(["p by Holm"] if holm else []), "verdict", "more seeds needed"]
    rows = []
    for one in compared:
        pair, found = one.pair, one.pair.summary
        rows.append(
            [
                pair.arm,
                str(found.n),
                format_score(pair.metric, found.mean, found.sd),
                _between(pair.metric, found.low, found.high),
                _between(pair.metric, one.both.low, one.both.high) if one.both.examples else NONE,
                f"{pair.p_value:.3f}",
                *([f"{pair.p_adjusted:.3f}"] if holm else []),
                paired_tests.outcome(pair),
                more_seeds(pair) or NONE,
            ]
        )
    return Table(f"Differences from {base}", head, rows, caption)


def _examples(compared: Sequence[Compared]) -> str:
    kept = all(one.both.examples for one in compared)
    return "examples too" if kept else "examples too, where the predictions are known"


def overall(found: Analysis) -> Table:
    """Each arm over all tasks: mean difference, interquartile mean, chance of improvement."""
    tasks = sum(1 for row in found.compared if row)
    over = f"over {tasks} tasks and their seeds" if tasks > 1 else "over the seeds"
    caption = (
        f"{over[0].upper()}{over[1:]}: the mean difference from {found.baseline} with the 95% "
        "interval of a bootstrap over seeds and examples, the sign-flip test over all pairs by "
        "Holm among the arms, the interquartile mean, and the chance that a run of the arm beats "
        f"one of {found.baseline}, both with 95% bootstrap intervals over seeds."
    )
    metric = next((part.metrics[0] for part in found.parts if part.runs), "score")
    head = ["arm", "tasks", "pairs", f"difference from {found.baseline}", "p by Holm", "verdict"]
    head += ["interquartile mean", "chance of improvement"]
    rows = [
        [
            one.arm,
            str(one.tasks),
            str(one.pairs) if one.pairs else NONE,
            _interval(metric, one.difference),
            NONE if one.p_adjusted is None else f"{one.p_adjusted:.3f}",
            overall_outcome(one) if one.pairs else NONE,
            _aggregate(one.interquartile_mean, lambda value: format_score(metric, value)),
            _aggregate(one.improvement, lambda value: f"{100 * value:.0f}%"),
        ]
        for one in found.overall
    ]
    return Table("All tasks" if len(found.parts) > 1 else "Over all seeds", head, rows, caption)


def searches(comparison: Comparison) -> Table | None:
    """The learning rate of each arm and how it was found; None without a search."""
    if not comparison.search:
        return None
    metric = next((one.metric for one in comparison.search.values() if one.metric), "score")
    head = ["arm", "learning rate", "optimum", "trials", "time", f"{metric} on held-out train data"]
    rows = []
    for label, one in comparison.search.items():
        done = [trial for trial in one.trials if trial.state == "done"]
        by_rate: dict[float, list[float]] = {}
        for trial in done:
            by_rate.setdefault(trial.lr, []).append(trial.score or 0.0)
        rows.append(
            [
                label,
                NONE if one.lr is None else f"{one.lr:g}",
                "inside the grid" if one.inside else "not bracketed",
                f"{len(done)} of {len(one.trials)}",
                format_duration(sum(trial.seconds or 0.0 for trial in one.trials)),
                "; ".join(f"{lr:g}: {format_score(metric, _mean(v))}" for lr, v in by_rate.items()),
            ]
        )
    caption = (
        "The search for each arm's learning rate: as many trials for each, scored on training "
        "rows that were held out, never on the data that are reported."
    )
    return Table("Learning rates", head, rows, caption)


def verdict(found: Analysis) -> str:
    """The outcome in a sentence; a single run's is its score."""
    unfinished = incomplete(found.parts)
    return f"{unfinished} {_verdict(found)}" if unfinished else _verdict(found)


def _verdict(found: Analysis) -> str:
    part = found.parts[0]
    if len(found.parts) > 1:
        return overall_headline(found)
    metric = part.metrics[0]
    if len(part.arms) > 1:
        pairs = [one.pair for one in found.compared[0]]
        return f"{headline(metric, found.baseline, pairs)} {needed(pairs)}".rstrip()
    values = list(part.values(part.arms[0], metric).values())
    if not values:
        return f"{part.arms[0]} finished, but its {metric} is not a finite number."
    summary = paired_tests.summarise(values)
    plural = "s" * (summary.n > 1)
    alone = "" if summary.n > 1 else "; one seed tells nothing about spread"
    return (
        f"{part.arms[0]}: {metric} {format_score(metric, summary.mean, summary.sd)} "
        f"over {summary.n} seed{plural}{alone}."
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _between(metric: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return NONE
    return f"{format_difference(metric, low)} to {format_difference(metric, high)}"


def _interval(metric: str, found: Interval | None) -> str:
    if found is None:
        return NONE
    around = "" if found.low is None else f" [{_between(metric, found.low, found.high)}]"
    return format_difference(metric, found.mean) + around


def _aggregate(found: Aggregate | None, tell: Callable[[float], str]) -> str:
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return tell(found.value)
    return f"{tell(found.value)} [{tell(found.low)} to {tell(found.high)}]"
