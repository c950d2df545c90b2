"""A comparison as a table: on the terminal, in Markdown, and as numbers in JSON."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from iwlora.bench import stats
from iwlora.bench.records import Comparison
from iwlora.bench.result import Result

FORMAT = "iwlora-summary/1"
NONE = "–"


def duration(seconds: float) -> str:
    """Wall time in two units at most.

    >>> duration(9.26), duration(200), duration(3 * 3600 + 59)
    ('9.3 s', '3 min 20 s', '3 h 00 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _rate(number: float) -> str:
    return f"{number:,.1f}"


# Field of a result, its column head, the short head for a terminal, and how it is told.
_COSTS: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    ("trainable_parameters", "trainable parameters", "trainable", _count),
    ("adapter_parameters", "adapter parameters", "adapter", _count),
    ("train_seconds", "training time", "training", duration),
    ("measure_seconds", "measuring time", "measuring", duration),
    ("examples_per_second", "examples/s", "examples/s", _rate),
    ("peak_memory_bytes", "peak memory", "memory", _gibibytes),
)
_TERMINAL_WIDTH = 100


def _known(result: Result, field: str) -> float | None:
    if field == "train_seconds" and result.resumed_at_step:
        return None
    value: float | None = getattr(result, field)
    return value


def _cost(results: Sequence[Result], field: str, tell: Callable[[float], str]) -> str:
    """The mean over runs; a count that differs between runs is shown as a range."""
    known = [value for result in results if (value := _known(result, field)) is not None]
    if not known:
        return NONE
    if tell is _count and min(known) < max(known):
        return f"{tell(min(known))}–{tell(max(known))}"
    return tell(sum(known) / len(known))


def score(metric: str, mean: float, spread: float | None = None) -> str:
    """A mean and its spread as shown: × 100 with two digits, or four digits for a loss.

    >>> score("f1", 0.8125, 0.01), score("loss", 0.5)
    ('81.25 ± 1.00', '0.5000')
    """
    digits = 2 if stats.scale(metric) > 1 else 4
    shown = f"{round(mean * stats.scale(metric), digits) + 0.0:.{digits}f}"  # no "-0.00"
    if spread is None:
        return shown
    return f"{shown} ± {spread * stats.scale(metric):.{digits}f}"


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the main table: scores as mean ± sd over seeds, then what they cost."""
    head = ["arm", "seeds", *comparison.metrics, *(title for _, title, _, _ in _COSTS)]
    rows = []
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        done, planned = len(results), len(comparison.seeds)
        row = [label, str(done) if done == planned else f"{done} of {planned}"]
        for metric in comparison.metrics:
            values = list(comparison.values(label, metric).values())
            found = stats.summarise(values) if values else None
            row.append(score(metric, found.mean, found.sd) if found else NONE)
        rows.append(row + [_cost(results, field, tell) for field, _, _, tell in _COSTS])
    return head, rows


def differences(comparison: Comparison) -> list[stats.PairedDifference]:
    """Each arm against the baseline in the primary metric, where they share a seed."""
    metric, base = comparison.metrics[0], stats.baseline_of(comparison.arms)
    baseline = comparison.values(base, metric)
    pairs = (
        stats.paired_difference(metric, label, comparison.values(label, metric), base, baseline)
        for label in comparison.arms
        if label != base
    )
    return [pair for pair in pairs if pair]


def verdict(comparison: Comparison) -> str:
    """The outcome in a sentence; a single run's is its score."""
    metric = comparison.metrics[0]
    if len(comparison.arms) > 1:
        base = stats.baseline_of(comparison.arms)
        return stats.headline(metric, base, differences(comparison))
    values = list(comparison.values(comparison.arms[0], metric).values())
    if not values:
        return f"{comparison.arms[0]} finished, but its {metric} is not a finite number."
    found = stats.summarise(values)
    plural = "s" * (found.n > 1)
    alone = "" if found.n > 1 else "; one seed tells nothing about spread"
    return (
        f"{comparison.arms[0]}: {metric} {score(metric, found.mean, found.sd)} "
        f"over {found.n} seed{plural}{alone}."
    )


def scoring(comparison: Comparison) -> str:
    """Where the scores come from and in what unit, in a sentence."""
    first = comparison.runs[0].result
    points = [metric for metric in comparison.metrics if stats.scale(metric) > 1]
    unit = f"; {', '.join(points)} × 100" if points else ""
    return (
        f"Scored on {first.evaluated_on} with the {first.selected_on}; "
        f"mean ± standard deviation over seeds{unit}."
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows, the head first, in columns: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["─" * width for width in widths], *rows[1:]]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in ruled
    ]


def terminal_table(comparison: Comparison) -> str:
    """The main table as aligned plain text, with what is missing and the verdict under it.

    Where it is wider than 100 columns the costs follow the scores as a table of their own.
    """
    title = f"{comparison.task} with {comparison.model}"
    absent = [f"missing: {absence(*one)}" for one in comparison.missing]
    if not comparison.runs:
        return "\n".join([title, "", "no run has finished yet", *absent])
    head, rows = table(comparison)
    scores = len(head) - len(_COSTS)
    full = [[*head[:scores], *(short for _, _, short, _ in _COSTS)], *rows]
    lines = _aligned(full)
    if max(map(len, lines)) > _TERMINAL_WIDTH:
        costs = [[row[0], *row[scores:]] for row in full]
        lines = [*_aligned([row[:scores] for row in full]), "", *_aligned(costs)]
    below = [scoring(comparison), *remarks(comparison), *absent, verdict(comparison)]
    return "\n".join([title, "", *lines, "", *below])


def remarks(comparison: Comparison) -> list[str]:
    """What a reader must know beside the numbers: the runs' own notes, and resumed runs."""
    results = [run.result for run in comparison.runs]
    notes = dict.fromkeys(" ".join(note.split()) for result in results for note in result.notes)
    resumed = [
        f"{result.label}, seed {result.seed} was resumed at step {result.resumed_at_step}: "
        "its training time is not known and not counted"
        for result in results
        if result.resumed_at_step
    ]
    return [*notes, *resumed]


def absence(label: str, seed: int, status: str) -> str:
    """One entry of ``Comparison.missing`` in words."""
    return f"{label}, seed {seed} ({status})"


def markdown(comparison: Comparison) -> str:
    """The main table, what is missing and the verdict in Markdown; names are escaped."""

    def plain(text: str) -> str:
        return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(text, quote=False))

    head, rows = table(comparison)
    lines = [
        f"# {plain(comparison.task)} with {plain(comparison.model)}",
        "",
        plain(verdict(comparison)),
        "",
        "| " + " | ".join(map(plain, head)) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|",
        *("| " + " | ".join(map(plain, row)) + " |" for row in rows),
        "",
        plain(scoring(comparison)),
        *(f"\n{plain(remark)}" for remark in remarks(comparison)),
    ]
    if comparison.missing:
        lines += ["", "Missing, and not counted:", ""]
        lines += [f"- {plain(absence(*one))}" for one in comparison.missing]
    return "\n".join(lines) + "\n"


def summary(comparison: Comparison) -> dict[str, Any]:
    """Everything in the tables as numbers in natural units (no × 100), ready for JSON."""
    first = comparison.runs[0].result
    arms = []
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        metrics = {}
        for metric in comparison.metrics:
            if values := comparison.values(label, metric):
                by_seed = {str(seed): value for seed, value in values.items()}
                metrics[metric] = {
                    **asdict(stats.summarise([*values.values()])),
                    "by_seed": by_seed,
                }
        costs = {
            field: {str(result.seed): _known(result, field) for result in results}
            for field, *_ in _COSTS
        }
        method = results[0].method if results else None
        arms.append({"label": label, "method": method, "metrics": metrics, **costs})
    return {
        "format": FORMAT,
        "model": comparison.model,
        "task": comparison.task,
        "seeds": list(comparison.seeds),
        "primary_metric": comparison.metrics[0],
        "evaluated_on": first.evaluated_on,
        "selected_on": first.selected_on,
        "verdict": verdict(comparison),
        "arms": arms,
        "differences": [asdict(pair) for pair in differences(comparison)],
        "remarks": remarks(comparison),
        "missing": [
            {"label": label, "seed": seed, "status": status}
            for label, seed, status in comparison.missing
        ],
    }
