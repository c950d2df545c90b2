"""Columns of text side by side, for a terminal of 100 characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

TERMINAL_WIDTH = 100

Column = Sequence[str]


def align(
    columns: Sequence[Column], pad: Callable[[str, int], str] = str.ljust, empty: str | None = None
) -> list[str]:
    """The lines of a table; one that is too wide continues below, with its first column.

    Args:
        columns: The cells of each column, from top to bottom.
        pad: ``str.ljust`` or ``str.rjust``, for all columns but the first.
        empty: The cell that says nothing: below, rows of it are left out.

    Example:
        >>> align([["arm", "lora"], ["score", "0.7"]], str.rjust)
        ['arm   score', 'lora    0.7']
    """
    lines: list[str] = []
    for number, band in enumerate(_bands(columns)):
        widths = [max(map(len, column)) for column in band]
        lines += [""] * bool(lines)
        for first, *others in zip(*band, strict=True):
            if number and {*others} == {empty}:
                continue
            cells = [first.ljust(widths[0]), *map(pad, others, widths[1:])]
            lines.append("  ".join(cells).rstrip())
    return lines


def _bands(columns: Sequence[Column]) -> Iterator[list[Column]]:
    """The columns in groups that fit on the terminal, each after the first column."""
    first, *others = columns
    start = width = max(map(len, first))
    band = [first]
    for column in others:
        column_width = 2 + max(map(len, column))
        if len(band) > 1 and width + column_width > TERMINAL_WIDTH:
            yield band
            band, width = [first], start
        band.append(column)
        width += column_width
    yield band
