"""A report as plain text: on the terminal, in Markdown, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence

from iwlora.compare.report.caveats import absences, remarks, scoring
from iwlora.compare.report.tables import (
    COSTS,
    Table,
    differences,
    known,
    overall,
    searches,
    table,
    verdict,
)
from iwlora.compare.statistics.analysis import Analysis
from iwlora.results.comparison import Comparison

_TERMINAL_WIDTH = 100


def terminal_table(found: Analysis) -> str:
    """The main table of each task as aligned plain text, what is missing, and the verdict.

    Where it is wider than 100 columns the costs follow the scores as a table of their own.
    """
    parts = "\n\n".join(_terminal_part(part) for part in found.parts)
    if not any(part.runs for part in found.parts):
        return parts
    if len(found.parts) > 1:
        shown = overall(found)
        rows = [row[:6] for row in (shown.head, *shown.rows)]
        parts += "\n\n" + "\n".join(["All tasks", "", *_aligned(rows), ""])
    return f"{parts}\n{verdict(found)}"


def _terminal_part(part: Comparison) -> str:
    absent = [f"missing: {one}" for one in absences(part.missing)]
    if not part.runs:
        return "\n".join([part.title, "", "no run has finished yet", *absent])
    shown = table(part)
    short = {title: short for _, title, short, _ in COSTS}
    scores = 2 + len(part.metrics)
    full = [[short.get(title, title) for title in shown.head], *shown.rows]
    lines = _aligned(full)
    if max(map(len, lines)) > _TERMINAL_WIDTH:
        costs = [[row[0], *row[scores:]] for row in full]
        lines = [*_aligned([row[:scores] for row in full]), "", *_aligned(costs)]
    if tried := searches(part):
        lines += ["", *_aligned([row[:5] for row in (tried.head, *tried.rows)])]
    below = [scoring(part), *remarks(part), *absent]
    return "\n".join([part.title, "", *lines, "", *below])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows, the head first, in columns: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["─" * width for width in widths], *rows[1:]]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in ruled
    ]


def markdown(found: Analysis) -> str:
    """All tables, what is missing and the verdict in Markdown; names are escaped."""
    title = found.parts[0].title if len(found.parts) == 1 else f"{len(found.parts)} tasks"
    lines = [f"# {_plain(title)}", "", _plain(verdict(found)), ""]
    level = "###" if len(found.parts) > 1 else "##"
    over = [*_markdown_table(overall(found), "##"), ""] if any(found.compared) else []
    if len(found.parts) > 1:
        lines += over
    for part, compared in zip(found.parts, found.compared, strict=True):
        if len(found.parts) > 1:
            lines += [f"## {_plain(part.title)}", ""]
        if part.runs:
            lines += [*_markdown_table(table(part), level), ""]
        lines += [f"{_plain(remark)}\n" for remark in remarks(part)]
        if compared:
            lines += [*_markdown_table(differences(part, compared), level), ""]
        if len(found.parts) == 1:
            lines += over
        if tried := searches(part):
            lines += [*_markdown_table(tried, level), ""]
        if part.missing:
            lines += ["Missing, and not counted:", ""]
            lines += [*(f"- {_plain(one)}" for one in absences(part.missing)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """Text that means itself in Markdown, where only "<a" and "&a" begin HTML."""
    safe = re.sub(r"[<&](?=[A-Za-z/!?#])", lambda found: html.escape(found[0]), text)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", safe)


def _markdown_table(shown: Table, level: str) -> list[str]:
    return [
        f"{level} {_plain(shown.title)}",
        "",
        "| " + " | ".join(map(_plain, shown.head)) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(shown.head) - 1)) + "|",
        *("| " + " | ".join(map(_plain, row)) + " |" for row in shown.rows),
        "",
        _plain(shown.caption),
    ]


def comma_separated(found: Analysis) -> str:
    """Every run in a row: what ``iwlora compare`` reads back, and what it cost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = [field for field, *_ in COSTS]
    others = list(dict.fromkeys(name for part in found.parts for name in part.metrics))
    writer.writerow(
        ["method", "task", "model", "seed", "metric", "score", "learning_rate", *costs, *others]
    )
    for part in found.parts:
        for result in (run.result for run in part.runs):
            row = [result.label, result.task, result.model, result.seed, result.primary_metric]
            row += [result.score, result.learning_rate]
            row += [known(result, field) for field in costs]
            writer.writerow([*row, *(result.metrics.get(name) for name in others)])
    return text.getvalue()


def latex(found: Analysis) -> str:
    """The tables of scores and of differences in LaTeX, with the rules of booktabs."""
    shown = [overall(found)] if len(found.parts) > 1 else []
    titles = [one.title for one in shown]
    for part, compared in zip(found.parts, found.compared, strict=True):
        if part.runs:
            shown.append(table(part))
            titles.append(part.title)
        if compared:
            shown.append(differences(part, compared))
            titles.append(f"{part.title}: {shown[-1].title.lower()}")
    return "% needs \\usepackage{booktabs}\n" + "\n".join(
        _latex_table(title, one) for title, one in zip(titles, shown, strict=True)
    )


def _latex_table(title: str, shown: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_tex, cells)) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(title)}. {_tex(shown.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(shown.head) - 1)}}}",
            r"\toprule",
            line(shown.head),
            r"\midrule",
            *map(line, shown.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "Δ": r"$\Delta$",
}


def _tex(text: str) -> str:
    """Text that means itself in LaTeX."""
    return "".join(_TEX.get(letter, letter) for letter in text)
