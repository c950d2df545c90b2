"""What every format of a table gives: its columns, its rows, and how it was understood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from iwlora.errors import raise_all, unknown

Records = Iterator[tuple[int, Sequence[Any]]]
"""(line or row from 1, fields) of each row."""
Problems = list[tuple[int, str]]
"""(line or row, what is wrong with it) of the rows of a file that cannot be read."""


@dataclass(frozen=True)
class Reading:
    """How tables are read, where a user says it; None: as each file looks."""

    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    plain_texts: bool = False
    """Whether .txt files hold plain texts even where they look like a table."""


@dataclass
class Table(ABC):
    """A file or folder of rows."""

    path: str
    reading: Reading = field(default_factory=Reading)
    unit: ClassVar[str] = "line"
    """What the number of a row counts."""

    @abstractmethod
    def columns(self) -> list[str]:
        """The names of the columns; raises ``IwloraError`` for a file that cannot be read."""

    @abstractmethod
    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """The fields of some columns; what is wrong with single rows is added to ``problems``."""

    def notes(self) -> list[str]:
        """What was guessed about the file, and how to say otherwise."""
        return []

    def place(self, number: int) -> str:
        """Where a row is in the file, for an error message."""
        return f"{self.unit} {number}"


def positions(
    path: str, header: Sequence[str], columns: Sequence[str], hint: str = ""
) -> list[int]:
    """The positions of the columns in a header; raises ``IwloraError`` for unknown ones."""
    problems = [
        f"{path}: {unknown('column', name, header)}{hint}"
        if name not in header
        else f"{path}: the header has column {name!r} {header.count(name)} times"
        for name in columns
        if header.count(name) != 1
    ]
    raise_all(problems)
    return [header.index(name) for name in columns]


def numbered_columns(count: int) -> list[str]:
    """The names of columns without a header.

    >>> numbered_columns(2)
    ['column1', 'column2']
    """
    return [f"column{number}" for number in range(1, count + 1)]


def ending(path: str) -> str:
    """The ending of a file's name in lower case, without ``.gz``.

    >>> ending("a/Reviews.CSV.gz")
    '.csv'
    """
    name = Path(path).name.lower().removesuffix(".gz")
    return Path(name).suffix


def nested_names(row: Mapping[str, Any], prefix: str = "", depth: int = 3) -> Iterator[str]:
    """The names of the fields inside of a row's mappings, with dots between.

    >>> list(nested_names({"id": 1, "review": {"body": "fine", "by": {"name": "x"}}}))
    ['review.body', 'review.by', 'review.by.name']
    """
    for name, value in row.items():
        if prefix:
            yield prefix + name
        if isinstance(value, Mapping) and depth:
            yield from nested_names(value, f"{prefix}{name}.", depth - 1)


def nested_value(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, which may be inside of others (``a.b``); raises ``KeyError``.

    >>> nested_value({"review": {"body": "fine"}}, "review.body")
    'fine'
    """
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    while dot:
        if isinstance(row.get(outer), Mapping):
            try:
                return nested_value(row[outer], inner)
            except KeyError:
                pass
        more, dot, inner = inner.partition(".")
        outer = f"{outer}.{more}"
    raise KeyError(name)
