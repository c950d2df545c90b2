"""The kind of a task by its labels: classes, several classes, numbers, or one label per word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from iwlora.tasks.kinds.cells import parse_number, unread_numbers_note, written_list
from iwlora.tasks.kinds.label_separator import divides_numbers, guess_separator, undivided_note

_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


def infer_kind(rows: Sequence[Sequence[Any]], label: Sequence[str], several: bool) -> str:
    """From the labels of the first rows: lists, numbers with a fraction, or classes.

    Args:
        rows: The cells of the first rows.
        label: The label columns.
        several: Whether a cell of text may hold several classes with a separator between.
    """
    if len(label) > 1:
        return "multi-label"
    written = [str(values[-1]).strip() for values in rows]
    if several and divides_numbers(written):
        return "multi-label"
    labels = [_parse_cell(values[-1]) for values in rows]
    if any(isinstance(value, list) for value in labels):
        first_text = _parse_cell(rows[0][0])
        return "token-labels" if isinstance(first_text, list) else "multi-label"
    has_fraction = any(isinstance(value, float) and not value.is_integer() for value in labels)
    if all(isinstance(value, (int, float)) for value in labels) and has_fraction:
        return "regression"
    if several and guess_separator(value for value in labels if isinstance(value, str)):
        return "multi-label"
    return "classification"


def notes_on_classes(cells: Sequence[Any]) -> list[str]:
    """What a user may have meant by labels that are read as classes."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    notes = (unread_numbers_note(cells), undivided_note(texts))
    return [note for note in notes if note][:1]


def numbers_in_order(cells: Sequence[Any]) -> bool:
    """Whether classes are whole numbers, of which there are three or more: a scale, it may be.

    >>> numbers_in_order(["1", "5", "3", "5"]), numbers_in_order([0, 1, 1])
    (True, False)
    """
    written = {str(cell).strip() for cell in cells}
    return len(written) > 2 and all(_WHOLE_NUMBER.fullmatch(cell) for cell in written)


def _parse_cell(value: Any) -> Any:
    """The number or list in a cell of text, where it is one."""
    if not isinstance(value, str):
        return value
    listed = written_list(value)
    if listed is not None:
        return listed
    try:
        return int(value) if _WHOLE_NUMBER.fullmatch(value.strip()) else parse_number(value)
    except ValueError:
        return value
