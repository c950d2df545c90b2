"""A table of a report as CSV, with the cells that the page shows."""

from __future__ import annotations

import csv
import io
import re

from iwlora.compare.report.tables.table import Table
from iwlora.inputs.formulas import mark_formula

_NUMBERS = re.compile(r"[+-]\d[\d.,]*( (±|to|\[[+-]?[\d.,]+ to) [+-]?[\d.,]+\]?)?")
"""Signed numbers with a spread or an interval, which no program takes for a formula."""


def table_csv(table: Table) -> str:
    """The head and the rows; cells that a spreadsheet takes for formulas are marked.

    Example:
        >>> table_csv(Table("Differences", "", ["arm", "mean"], [["=1+1", "+1.25 ± 0.40"]]))
        "arm,mean\\n'=1+1,+1.25 ± 0.40\\n"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (table.head, *table.rows):
        writer.writerow(cell if _NUMBERS.fullmatch(cell) else mark_formula(cell) for cell in row)
    return text.getvalue()
