"""A report as plain text for a terminal: aligned tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iwlora.compare.report.content import ReportContent, TaskSection
from iwlora.compare.report.tables import Table

_WIDTH = 100


def terminal_text(content: ReportContent) -> str:
    """The scores of each task with the caveats, the table over all tasks, and the verdict."""
    blocks = [_section(section) for section in content.sections]
    if content.several_tasks and content.overall:
        blocks.append("\n".join([content.overall.title, "", *_aligned(content.overall), ""]))
    text = "\n\n".join(blocks)
    return f"{text}\n{content.verdict}" if content.verdict else text


def _section(section: TaskSection) -> str:
    missing = [f"missing: {runs}" for runs in section.missing]
    if not section.scores:
        return "\n".join([section.title, "", "no run has finished yet", *missing])
    lines = _aligned(section.scores)
    if section.learning_rates:
        lines += ["", *_aligned(section.learning_rates)]
    return "\n".join(
        [section.title, "", *lines, "", section.scores.caption, *section.caveats, *missing]
    )


def _aligned(table: Table) -> list[str]:
    """The table in columns; a table that is too wide continues below, with its first column."""
    columns = list(zip(table.head, *table.rows, strict=True))
    lines: list[str] = []
    for band in _bands(columns):
        widths = [max(map(len, column)) for column in band]
        head, *rows = zip(*band, strict=True)
        lines += [""] * bool(lines)
        for row in (head, ["─" * width for width in widths], *rows):
            cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
            lines.append("  ".join(cells).rstrip())
    return lines


def _bands(columns: Sequence[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """The columns in groups that fit on the terminal, each after the first column."""
    first, *others = columns
    start = width = max(map(len, first))
    band = [first]
    for column in others:
        column_width = 2 + max(map(len, column))
        if len(band) > 1 and width + column_width > _WIDTH:
            yield band
            band, width = [first], start
        band.append(column)
        width += column_width
    yield band
