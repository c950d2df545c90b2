"""A report as plain text for a terminal: aligned tables of at most 100 columns."""

from __future__ import annotations

from iwlora.compare.report.content import ReportContent, TaskSection
from iwlora.compare.report.tables import Table
from iwlora.compare.report.text_columns import align


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
    lines = [section.title, "", *_aligned(section.scores), ""]
    if section.learning_rates:
        lines += [*_aligned(section.learning_rates), ""]
    return "\n".join([*lines, section.scores.caption, *section.caveats, *missing])


def _aligned(table: Table) -> list[str]:
    columns = zip(table.head, *table.rows, strict=True)
    ruled = [[head, "─" * max(map(len, (head, *cells))), *cells] for head, *cells in columns]
    return align(ruled, str.rjust)
