"""Errors that a user can act on: what was given, what is accepted, how to fix it."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_LONGEST = 500
_LISTED_PROBLEMS = 20


class IwloraError(ValueError):
    """A mistake in the input; the command line prints its message without a traceback."""


class Diverged(IwloraError):
    """A loss, gradient or output became NaN or infinite; ``batch`` counts from 0."""

    def __init__(self, message: str, batch: int | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class BadRow(NamedTuple):
    """A row of a file of data that cannot be used: ``place`` is "line 13" or "question 57"."""

    split: str
    file: str
    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.problem}"


class BadRowsError(IwloraError):
    """Rows of the data cannot be used: ``rows`` has all of them, the message the first ones.

    ``others`` are the problems of whole files, and ``file`` is where all rows are listed.
    """

    def __init__(
        self, rows: Sequence[BadRow], others: Sequence[str] = (), file: str | None = None
    ) -> None:
        self.rows, self.others = tuple(rows), tuple(others)
        message = list_problems([*others, *(truncate(str(row)) for row in rows)])
        if file is not None:
            message += f"\n{file} lists all rows that cannot be used ({count_rows(rows):,})"
            message += "" if others else "; task.on_bad=skip leaves them out"
        super().__init__(message)

    def __reduce__(self) -> Any:
        return type(self), (self.rows, self.others)


def count_rows(rows: Iterable[BadRow]) -> int:
    """How many rows these are: a row may have several problems.

    >>> row = BadRow("train", "a.csv", "line 2", "column 'text' is empty")
    >>> count_rows([row, row._replace(problem="column 'mood' is empty")])
    1
    """
    return len({row[:3] for row in rows})


class CannotWrite(IwloraError):
    """Something could not be written, because the disk is full or forbids it, for example."""


def os_error_text(error: OSError) -> str:
    """The reason of an error of the operating system, and its file.

    >>> os_error_text(FileNotFoundError(2, "No such file or directory", "rows.csv"))
    'No such file or directory: rows.csv'
    """
    if error.strerror is None:
        return str(error) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking; torch, and libraries that are loaded, have their own errors.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    True
    >>> is_out_of_memory(ImportError("libtorch.so: failed to map segment from shared object"))
    True
    """
    texts = ("can't allocate memory", "failed to map segment")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, (RuntimeError, ImportError))
            and any(text in str(error) for text in texts)
        )
    )


def unknown(category: str, name: str, choices: Iterable[str]) -> IwloraError:
    """The error for a name that is not among ``choices``; it suggests similar ones.

    >>> print(unknown("method", "ia-lora", ["full", "lora", "iw-lora"]))
    unknown method 'ia-lora'; did you mean 'iw-lora', 'lora'? (accepted: full, lora, iw-lora)
    """
    accepted = list(choices)
    near = difflib.get_close_matches(name, accepted, n=3)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ";"
    return IwloraError(f"unknown {category} {name!r}{hint} (accepted: {', '.join(accepted)})")


def list_problems(problems: Sequence[str], most: int = _LISTED_PROBLEMS) -> str:
    """The first ``most`` problems, each on a line, and the number of the others.

    >>> print(list_problems(["line 2: empty", "line 5: empty"], most=1))
    line 2: empty
    … and 1 more
    """
    more = len(problems) - most
    return "\n".join([*problems[:most], *([f"… and {more:,} more"] if more > 0 else [])])


def raise_all(problems: Sequence[str]) -> None:
    """Raise one ``IwloraError`` that lists the problems, if there are any."""
    if problems:
        raise IwloraError(list_problems(problems))


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; at least one.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def truncate(text: str) -> str:
    """The text, or its beginning where it is longer than a message should be."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def short_repr(value: Any) -> str:
    """The ``repr`` of a value for a message, with the middle left out where it is large.

    >>> short_repr([1, "x" * 10_000])[:12], len(short_repr("x" * 10_000)) < 200
    ("[1, 'xxxxxxx", True)
    """
    return truncate(_Repr().repr(value))


class _Repr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = 20
        self.maxstring = self.maxother = self.maxlong = 100

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to turn numbers of very many digits into text."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else "a huge number"


def is_of_system(error: BaseException) -> bool:
    """Whether a disk or a permission is at fault, so that a repeated command may succeed.

    >>> try:
    ...     raise IwloraError("cannot read a.csv") from PermissionError(13, "Permission denied")
    ... except IwloraError as error:
    ...     is_of_system(error)
    True
    >>> is_of_system(FileNotFoundError(2, "No such file or directory"))
    False
    """
    cause: BaseException | None = error
    while cause is not None:
        absent = isinstance(cause, (FileNotFoundError, NotADirectoryError))
        if isinstance(cause, OSError) and cause.errno is not None and not absent:
            return True
        cause = cause.__cause__ or cause.__context__
    return False
