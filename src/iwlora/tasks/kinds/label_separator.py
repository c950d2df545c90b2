"""What stands between the class names of a cell that holds several of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SEPARATORS = (";", "|", ",", "/")
"""In the order in which they are tried: a comma or a slash may belong to a name."""
_ALONE = 0.8
_NUMBERS = re.compile(r"[\d\s,]+")


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


def divides_numbers(cells: Sequence[str]) -> bool:
    """Whether the commas of a column of numbers stand between class ids, as in ``2,5,27``.

    Raises:
        ValueError: They may be decimal commas too.

    Example:
        >>> divides_numbers(["2", "5", "27", "2,5", "2,5,27"]), divides_numbers(["1,5", "2,0"])
        (True, False)
        >>> divides_numbers(["2", "5", "2,5"])
        Traceback (most recent call last):
        ValueError: holds '2,5', which may be the number 2.5 or the classes 2 and 5; give \
task.kind=regression or task.kind={name: multi-label, separator: ','}
    """
    if guess_separator(cells) != "," or not all(_NUMBERS.fullmatch(cell) for cell in cells):
        return False
    if any(cell.count(",") > 1 for cell in cells):
        return True
    divided = next(cell for cell in cells if "," in cell)
    first, second = split_names(divided, ",")
    raise ValueError(
        f"holds {divided!r}, which may be the number {first}.{second} or the classes {first} and "
        f"{second}; give task.kind=regression or task.kind={{name: multi-label, separator: ','}}"
    )


def undivided_note(cells: Iterable[str]) -> str | None:
    """A note on class names that hold a separator, where a quarter of them or more does.

    >>> undivided_note(["a,b", "b,c", "c"])
    "2 of 3 classes hold ',', such as 'a,b', and each is one class; if they are several, give \
task.kind={name: multi-label, separator: ','}"
    """
    written = sorted({cell.strip() for cell in cells})
    for separator in SEPARATORS:
        divided = [cell for cell in written if len(split_names(cell, separator)) > 1]
        if divided and 4 * len(divided) >= len(written):
            return (
                f"{len(divided)} of {len(written)} classes hold {separator!r}, such as "
                f"{divided[0]!r}, and each is one class; if they are several, give "
                f"task.kind={{name: multi-label, separator: {separator!r}}}"
            )
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
