"""A report as plain text for a terminal: aligned tables of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.content import ReportContent, TaskSection
from iwlora.compare.report.tables.table import EMPTY, Table
from iwlora.compare.report.text_columns import TERMINAL_WIDTH, align


def terminal_text(content: ReportContent) -> str:
    """The scores of each task with the caveats, the table over all tasks, and the answers.

    The answers are last, where the screen of a terminal stops.
    """
    blocks = [_section(section) for section in content.sections]
    if content.several_tasks and content.overall:
        blocks.append("\n".join([content.overall.title, "", *_aligned(content.overall), ""]))
    return "\n\n".join([*blocks, *("\n".join(_answer(answer)) for answer in content.answers)])


def _section(section: TaskSection) -> str:
    missing = [f"missing: {runs}" for runs in section.missing]
    if not section.scores:
        return "\n".join([section.title, "", "no run has finished yet", *missing])
    lines = [section.title, "", *_aligned(section.scores), ""]
    if section.learning_rates:
        lines += [*_aligned(section.learning_rates), ""]
    return "\n".join([*lines, section.scores.caption, *section.caveats, *missing])


def _answer(answer: Answer) -> Iterator[str]:
    yield answer.question
    yield from textwrap.wrap(answer.short, TERMINAL_WIDTH)
    for sentence in answer.evidence:
        yield from textwrap.wrap(
            sentence,
            TERMINAL_WIDTH,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    yield from (f"  {command}" for command in answer.commands)


def _aligned(table: Table) -> list[str]:
    columns = zip(table.head, *table.rows, strict=True)
    ruled = [[head, "─" * max(map(len, (head, *cells))), *cells] for head, *cells in columns]
    return align(ruled, str.rjust, EMPTY)
