"""The tables of a search: its stages, the choices of each, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iwlora.compare.number_format import counted, display_scale, format_p_value
from iwlora.errors import listed
from iwlora.methods.grouped.grouping import is_tuned
from iwlora.results.comparison.designs import ChoiceSummary, DesignSummary, StageSummary
from iwlora.results.durations import format_duration
from iwlora.results.metric_direction import oriented

EMPTY = "–"


@dataclass(frozen=True)
class Table:
    """A head, and rows whose first cell names the row."""

    head: list[str]
    rows: list[list[str]]


def stage_table(summary: DesignSummary) -> Table:
    """A row for each stage: its verdict, what is kept, its runs and their time."""
    return Table(
        ["stage", "search", "verdict", "kept", "runs", "drawn again", "time"],
        [
            [
                stage.name,
                stage.search,
                stage.verdict,
                _kept_text(stage),
                f"{len(stage.runs):,}",
                f"{stage.redrawn:,}",
                format_duration(stage.seconds),
            ]
            for stage in summary.stages
        ],
    )


def choice_table(stage: StageSummary, metric: str) -> Table:
    """A row for each choice: its draws, mean, difference from the kept one, and its end."""
    head = ["choice", "draws", "failed", "mean ± sd", "difference from the kept choice", "state"]
    return Table(head, [_choice_row(choice, metric) for choice in stage.choices])


def _choice_row(choice: ChoiceSummary, metric: str) -> list[str]:
    mean = EMPTY
    if choice.mean is not None:
        mean = number(choice.mean, metric)
        mean += "" if choice.sd is None else f" ± {number(choice.sd, metric)}"
    difference = EMPTY
    if choice.difference is not None:
        difference = number(choice.difference, metric, "+")
        if choice.low is not None and choice.high is not None:
            ends = (number(end, metric, "+") for end in (choice.low, choice.high))
            difference += f" [{', '.join(ends)}]"
    state: str = choice.state
    if choice.dropped_after is not None and choice.p_value is not None:
        p = format_p_value(choice.p_value)
        state += f" after {choice.dropped_after}: {choice.dropped_by} is better (p {_equal(p)})"
    return [choice.label, str(choice.draws), str(choice.failed), mean, difference, state]


def effect_table(summary: DesignSummary) -> Table:
    """A row for each strategy in each group: its effect, in points."""
    metric = summary.metric or ""
    rows = []
    for effect in summary.effects:
        text, p = EMPTY, EMPTY
        if effect.mean is not None and effect.low is not None and effect.high is not None:
            ends = (number(end, metric, "+") for end in (effect.low, effect.high))
            text = f"{number(effect.mean, metric, '+')} [{', '.join(ends)}]"
            p = format_p_value(effect.p_value or 0.0)
        rows.append([f"group {effect.group}, {effect.strategy}", text, p])
    return Table(["strategy", "effect on the score", "p"], rows)


def proxy_table(summary: DesignSummary) -> Table:
    """A row for each number that is known before training: its rank correlation with the scores."""
    rows = []
    for proxy in summary.proxies:
        text, permuted = f"{proxy.rho:+.2f}", EMPTY
        if proxy.low is not None and proxy.high is not None:
            text += f" [{proxy.low:+.2f}, {proxy.high:+.2f}]"
        else:
            text += " (too few draws for an interval)"
        if proxy.permuted_rho is not None and proxy.p_value is not None:
            p = format_p_value(proxy.p_value)
            permuted = f"{proxy.permuted_rho:+.2f}, p {_equal(p)}"
        rows.append([proxy.name, text, f"{proxy.runs:,}", f"{proxy.draws:,}", permuted])
    head = ["proxy", "rank correlation", "runs", "draws", "layers permuted"]
    return Table(head, rows)


def cost_sentence(summary: DesignSummary) -> str:
    """What the stages cost, and what independent designs for each choice would have cost."""
    text = f"The stages took {counted(summary.runs, 'run')}, {format_duration(summary.seconds)}"
    text += " of training and measuring"
    if failed := summary.runs - summary.timed_runs:
        text += f", without the time of {counted(failed, 'failed run')}"
    text += "."
    if summary.paper_seconds is None:
        return text
    return (
        f"{text} Independent designs for each choice, as in the paper, would have been "
        f"{counted(summary.paper_runs, 'run')}, about {format_duration(summary.paper_seconds)}."
    )


def open_sentence(summary: DesignSummary) -> str:
    """Which stages decided nothing; empty if there are none."""
    names = [stage.name for stage in summary.stages if stage.verdict == "open"]
    if not names:
        return ""
    return (
        f"Open: {listed(names)}. What was taken there may be no better than the other choices that "
        "were left."
    )


def score_sentence(summary: DesignSummary) -> str:
    """What the scores of the tables are; empty before the first one is known."""
    if summary.metric is None:
        return ""
    sign = "" if oriented(summary.metric, 1.0) > 0 else ", with the opposite sign"
    return f"Scores are {summary.metric} on held-out training rows{sign}; higher ones are better."


def value_text(value: Any, tuned: Any = "all") -> str:
    """A choice as people read it; a group that is not tuned has no strategies.

    >>> value_text("spindle"), value_text([["lora"], ["lora", "bitfit"]]), value_text([1, 2])
    ('spindle', '{lora} {lora, bitfit}', '1, 2')
    >>> value_text([["lora"], ["lora", "bitfit"]], tuned=[1])
    '{lora} {}'
    """
    if not isinstance(value, list):
        return str(value)
    if value and all(isinstance(item, list) for item in value):
        kept = (item if is_tuned(tuned, group) else [] for group, item in enumerate(value, start=1))
        return " ".join(f"{{{', '.join(map(str, item))}}}" for item in kept)
    return ", ".join(map(str, value))


def _kept_text(stage: StageSummary) -> str:
    """What a stage kept; nothing where its group is not tuned."""
    if not stage.choices:
        return EMPTY
    tuned = [run.point.get("tuned", "all") for run in stage.runs]
    alike = tuned and all(each == tuned[0] for each in tuned)
    return value_text(stage.value, tuned[0] if alike else "all")


def found_texts(summary: DesignSummary) -> dict[str, str]:
    """{component: what was found, as people read it}."""
    found = summary.found or {}
    tuned = found.get("tuned", "all")
    return {key: value_text(value, tuned) for key, value in found.items()}


def number(value: float, metric: str, sign: str = "") -> str:
    """A score or difference that is in points already, or a loss."""
    return f"{value + 0.0:{sign}.{2 if display_scale(metric) > 1 else 4}f}"


def columns(table: Table) -> list[Sequence[str]]:
    """The cells of each column, its head first."""
    return [list(cells) for cells in zip(table.head, *table.rows, strict=True)]


def _equal(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
