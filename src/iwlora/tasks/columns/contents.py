"""What the first rows say about a column: a text to read, a class, or the number of a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Cells: TypeAlias = Mapping[str, Sequence[Any]]
"""{column: its cells in the first rows}."""

_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
_NUMBER = re.compile(r"[+-]?[\d.,]+%?(?:[eE][+-]?\d+)?")
# A text to read has this many bytes on average (in UTF-8; a Chinese character has three).
_BYTES_OF_TEXT = 16
# Less of a date or of a row of numbers are letters.
_LETTERS = 0.6
_LONGEST_CLASS = 60
# Fewer rows than these can all differ by chance.
_NUMBERED_ROWS = 20


def is_text(cells: Sequence[Any]) -> bool:
    """Whether a column holds long and varied texts.

    >>> is_text(["a film that I liked", "nothing happens in it"]), is_text(["good", "bad"])
    (True, False)
    >>> is_text(["Mon Apr 06 22:19:45 2009", "Tue May 05 20:19:41 2009"])
    False
    """
    texts = _written(cells)
    if len(texts) < len(cells) / 2 or not texts or 2 * len(set(texts)) < len(texts):
        return False
    sentences = sum(" " in text or not text.isascii() for text in texts)
    size = sum(len(text.encode(errors="replace")) for text in texts)
    written = "".join("".join(texts).split())
    letters = sum(map(str.isalpha, written))
    return (
        2 * sentences > len(texts)
        and size >= _BYTES_OF_TEXT * len(texts)
        and letters >= _LETTERS * len(written)
    )


def may_be_text(cells: Sequence[Any]) -> bool:
    """Whether a column whose name says that it holds texts may do so: it is not all numbers."""
    return not cells or any(not _NUMBER.fullmatch(text) for text in _written(cells))


def repeats(cells: Sequence[Any]) -> bool:
    """Whether a column holds few short values that occur again and again.

    >>> repeats(["pos", "neg", "neg", "pos"]), repeats(["a", "b", "c", "d"]), repeats([1, 1, 1, 1])
    (True, False, False)
    """
    values = [cell for cell in cells if isinstance(cell, (str, int, float)) and cell != ""]
    distinct = set(map(str, values))
    return (
        len(values) == len(cells)
        and 2 <= len(distinct) <= len(values) / 2
        and all(len(value) <= _LONGEST_CLASS for value in distinct)
    )


def is_binary(cells: Sequence[Any]) -> bool:
    """Whether a column holds nothing but 0 and 1, or true and false."""
    return bool(cells) and {str(cell).strip().casefold() for cell in cells} <= {
        *("0", "1", "0.0", "1.0", "true", "false")
    }


def numbers_rows(cells: Sequence[Any]) -> bool:
    """Whether a column holds whole numbers that all differ.

    >>> numbers_rows(range(100, 160)), numbers_rows([1, 2, 3])
    (True, False)
    """
    written = list(map(str, cells))
    return (
        len(written) >= _NUMBERED_ROWS
        and len(set(written)) == len(written)
        and all(_WHOLE_NUMBER.fullmatch(cell.strip()) for cell in written)
    )


def _written(cells: Sequence[Any]) -> list[str]:
    """The texts in the cells, without empty ones."""
    return [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
