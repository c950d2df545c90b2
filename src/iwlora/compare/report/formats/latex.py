"""The tables of scores and differences as LaTeX, with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.report.content import ReportContent
from iwlora.compare.report.tables.table import Table
from iwlora.inputs.control_characters import visible


def latex(content: ReportContent) -> str:
    """The tables as floats, each with its caption."""
    floats = []
    if content.several_tasks and content.overall:
        floats.append(_table(content.overall.title, content.overall))
    for section in content.sections:
        if section.scores:
            floats.append(_table(section.title, section.scores))
        if section.differences:
            title = f"{section.title}: {section.differences.title.lower()}"
            floats.append(_table(title, section.differences))
    return "% needs \\usepackage{booktabs}\n" + "\n".join(floats)


def _table(title: str, table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(title)}. {escape(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
            r"\toprule",
            line(table.head),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_ESCAPES = {
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


def escape(text: str) -> str:
    r"""Text whose special characters LaTeX prints.

    >>> print(escape("f1_macro: 5%"))
    f1\_macro: 5\%
    """
    return "".join(_ESCAPES.get(letter, letter) for letter in visible(text))
