"""What stands between the class names of a cell that holds several of them."""

from __future__ import annotations

from collections.abc import Iterable

SEPARATORS = (";", "|", ",")
"""In the order in which they are tried: a comma may belong to a name."""
_ALONE = 0.8


def guess_separator(cells: Iterable[str]) -> str | None:
    """The separator of a column with several class names in a cell; None for single names.

    A separator is taken if it divides some cells, and four fifths of the names that this gives
    also stand alone in a cell. So ``comedy, drama`` next to ``comedy`` and ``drama`` is two
    classes, and ``New York, NY`` is one: nothing is just ``NY``.

    Args:
        cells: The cells of the first rows.

    Example:
        >>> guess_separator(["comedy,drama", "comedy", "drama"])
        ','
        >>> guess_separator(["New York, NY", "Buffalo, NY", "Boston, MA"])
    """
    written = {cell.strip() for cell in cells}
    for separator in SEPARATORS:
        divided = [parts for cell in written if len(parts := split_names(cell, separator)) > 1]
        names = {name for parts in divided for name in parts}
        if names and len(names & written) >= _ALONE * len(names):
            return separator
    return None


def likely_separator(cells: Iterable[str]) -> str:
    """The separator where the cells are known to hold several names: the first that occurs."""
    written = list(cells)
    guess = guess_separator(written)
    occurring = (mark for mark in SEPARATORS if any(mark in cell for cell in written))
    return guess or next(occurring, SEPARATORS[0])


def split_names(cell: str, separator: str) -> list[str]:
    """The names in a cell, without spaces at their ends and without empty ones.

    >>> split_names(" a; b;", ";")
    ['a', 'b']
    """
    return [name.strip() for name in cell.split(separator) if name.strip()]
