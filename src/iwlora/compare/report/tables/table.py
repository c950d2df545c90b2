"""A table of text, and how its cells show numbers and intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from iwlora.compare.statistics.bootstrap import Aggregate, Interval
from iwlora.compare.statistics.paired_tests import Summary

EMPTY = "–"
count_text = "{:,.0f}".format


@dataclass(frozen=True)
class Table:
    """A table of text: a title, a caption, a head, and rows whose first cell names the row."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[str]]


def known_text(text: Callable[[float], str], value: float | None) -> str:
    return EMPTY if value is None else text(value)


def range_text(text: Callable[[float], str], interval: Summary | Interval | Aggregate) -> str:
    if interval.low is None or interval.high is None:
        return EMPTY
    return f"{text(interval.low)} to {text(interval.high)}"


def text_with_range(text: Callable[[float], str], estimate: Interval | Aggregate | None) -> str:
    if estimate is None:
        return EMPTY
    value = text(estimate.mean if isinstance(estimate, Interval) else estimate.value)
    return value if estimate.low is None else f"{value} [{range_text(text, estimate)}]"
