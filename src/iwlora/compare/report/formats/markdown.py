"""A report as Markdown: the answers, all tables, the caveats and the verdict."""

from __future__ import annotations

import html
import re

from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.content import ReportContent, TaskSection
from iwlora.compare.report.tables.table import Table


def markdown(content: ReportContent) -> str:
    """The report in Markdown; names are escaped."""
    lines = [f"# {_escape(content.title)}", ""]
    for answer in content.answers:
        lines += _answer(answer)
    if content.verdict:
        lines += ["## Statistical verdict", "", _escape(content.verdict), ""]
    overall = _table(content.overall, "##") if content.overall else []
    if content.several_tasks:
        lines += overall
        for section in content.sections:
            lines += [f"## {_escape(section.title)}", "", *_section(section, "###")]
    else:
        lines += [*_section(content.sections[0], "##"), *overall]
    return "\n".join(lines).rstrip() + "\n"


def _answer(answer: Answer) -> list[str]:
    lines = [f"## {answer.question}", "", f"**{_escape(answer.short)}**", ""]
    if answer.evidence:
        lines += [*(f"- {_escape(sentence)}" for sentence in answer.evidence), ""]
    for command in answer.commands:
        lines += [f"    {command}", ""]
    return lines


def _section(section: TaskSection, level: str) -> list[str]:
    lines = []
    for table in section.tables:
        lines += _table(table, level)
        if table is section.scores:
            lines += [f"{_escape(caveat)}\n" for caveat in section.caveats]
    if section.missing:
        lines += ["Missing, and not counted:", ""]
        lines += [*(f"- {_escape(runs)}" for runs in section.missing), ""]
    return lines


def _table(table: Table, level: str) -> list[str]:
    return [
        f"{level} {_escape(table.title)}",
        "",
        "| " + " | ".join(map(_escape, table.head)) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(table.head) - 1)) + "|",
        *("| " + " | ".join(map(_escape, row)) + " |" for row in table.rows),
        "",
        _escape(table.caption),
        "",
    ]


def _escape(text: str) -> str:
    """Text without special characters of Markdown; in HTML only "<a" and "&a" are special."""
    safe = re.sub(r"[<&](?=[A-Za-z/!?#])", lambda match: html.escape(match[0]), text)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", safe)
