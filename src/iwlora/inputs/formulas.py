"""Cells that a spreadsheet would take for a formula: marked where people read, and restored.

A program for spreadsheets executes a cell that begins like a formula when the file is opened, and a
formula can read other files or start programs. A quote before it makes it a text.
"""

from __future__ import annotations

import os
import re

# Also the wide forms of = + - @, which some programs take for the narrow ones.
_STARTS = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

KEEP = "IWLORA_KEEP_FORMULAS"
"""The environment variable that, set to 1, leaves cells that begin like formulas as they are."""


def mark_formula(cell: str) -> str:
    """A cell that begins like a formula, with a quote before it; others, and numbers, as they are.

    >>> mark_formula("=1+1"), mark_formula("-1.5"), mark_formula("it's")
    ("'=1+1", '-1.5', "it's")
    """
    # A cell that itself begins with a quote is marked always, else reading would take its quote.
    is_kept = os.environ.get(KEEP) == "1" and not cell.startswith("'")
    if is_kept or _NUMBER.fullmatch(cell) or not _STARTS.match(cell):
        return cell
    return f"'{cell}"


def restore_formula(cell: str) -> str:
    """What :func:`mark_formula` was given, from what it returned.

    >>> restore_formula("'=1+1"), restore_formula("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _STARTS.match(cell) else cell
