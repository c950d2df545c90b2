"""Spreadsheets: .xlsx by openpyxl, .ods by pandas and odfpy."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, TypeVar

from iwlora.errors import IwloraError, truncate
from iwlora.extras import locate_package
from iwlora.inputs.limits import check_growth, memory_limit
from iwlora.inputs.places import regular_file
from iwlora.inputs.tables.arrow import BATCH_MEMORY, BATCH_ROWS
from iwlora.inputs.tables.reading import (
    Problems,
    Records,
    Table,
    ending,
    numbered_columns,
    positions,
)

Result = TypeVar("Result")

MOST_ROWS = 2**20
"""Of a sheet of Excel."""
_BYTES_PER_CELL = 8
_DEFINITIONS = re.compile(rb"<!(DOCTYPE|ENTITY)")


class Spreadsheet(Table):
    """The first sheet. Its first row that is not empty is the header, unless there is none."""

    unit: ClassVar[str] = "row"

    def columns(self) -> list[str]:
        """The cells of the header, or column1, column2, …"""
        _, first = next(self._cells(), (1, []))
        numbered = numbered_columns(len(first))
        if self.reading.header is False:
            return numbered
        named = zip(numbered, first, strict=True)
        return [number if cell is None else str(cell).strip() for number, cell in named]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """Texts, numbers and truth values; None for an empty cell, and for no other."""
        header = self.columns()
        places = positions(self.path, header, columns)
        first = 0 if self.reading.header is False else 1
        for number, cells in islice(self._cells(), first, None):
            if len(cells) <= len(header):
                padded = [*cells, *[None] * (len(header) - len(cells))]
                yield number, [padded[place] for place in places]
            else:
                wrong = (
                    f"{len(cells)} cells, the header has {len(header)}; give each column a name,"
                )
                problems.append((number, f"{wrong} or empty the cells beside the table"))

    def notes(self) -> list[str]:
        """Which sheet is read, where there are several."""
        with _sheets(self.path) as (names, _):
            if len(names) < 2:
                return []
            return [
                f"{self.path}: the sheet {names[0]!r} is read, the first of {len(names)}; save "
                "another one as a file of its own"
            ]

    def _cells(self) -> Iterator[tuple[int, list[Any]]]:
        """(row from 1, cells without empty ones at the end) of each row that is not empty."""
        size, count, start = regular_file(self.path).stat().st_size, 0, 1
        with _sheets(self.path) as (_, rows):
            while batch := _bounded(self.path, lambda: list(islice(rows, BATCH_ROWS))):
                count += sum(map(len, batch))
                check_growth(self.path, _BYTES_PER_CELL * count, size)
                for number, row in enumerate(batch, start=start):
                    cells = [None if cell == "" else cell for cell in row]
                    while cells and cells[-1] is None:
                        cells.pop()
                    if cells:
                        yield number, cells
                start += len(batch)
                if start > MOST_ROWS:
                    raise IwloraError(
                        f"{self.path} has more than {MOST_ROWS:,} rows; write it as CSV or Parquet"
                    )


@contextmanager
def _sheets(path: str) -> Iterator[tuple[list[str], Iterator[Sequence[Any]]]]:
    """The names of the sheets, and the rows of the first one."""
    is_excel = ending(path) == ".xlsx"
    locate_package("openpyxl" if is_excel else "odf", path)
    _check_archive(path)
    book = _bounded(path, lambda: (_excel_book if is_excel else _open_document)(path))
    try:
        yield book.names, iter(book.rows)
    finally:
        book.close()


@dataclass
class _Book:
    names: list[str]
    rows: Iterable[Sequence[Any]]
    close: Callable[[], None]


def _excel_book(path: str) -> _Book:
    from openpyxl import load_workbook

    book = load_workbook(regular_file(path), read_only=True, data_only=True, keep_links=False)
    sheet = book.worksheets[0]
    sheet.reset_dimensions()  # what the file says of its size may be wrong
    return _Book(book.sheetnames, sheet.iter_rows(values_only=True), book.close)


def _open_document(path: str) -> _Book:
    from pandas import ExcelFile

    with ExcelFile(regular_file(path), engine="odf") as book:
        table = book.parse(0, header=None, dtype=object, na_filter=False)
        return _Book(
            [str(name) for name in book.sheet_names], table.to_numpy().tolist(), book.close
        )


def _check_archive(path: str) -> None:
    """Raise ``IwloraError`` for an archive that unpacks into far too much, or defines entities."""
    source = regular_file(path)

    def check() -> None:
        with zipfile.ZipFile(source) as archive:
            parts = archive.infolist()
            # No more than this size is unpacked of a part, whatever is in it.
            check_growth(path, sum(part.file_size for part in parts), source.stat().st_size)
            for part in parts:
                if part.filename.endswith(".xml"):
                    with archive.open(part) as stream:
                        start = stream.read(2**12).replace(b"\0", b"")
                    if _DEFINITIONS.search(start):
                        raise IwloraError(f"{path} defines entities of XML in {part.filename}")

    _bounded(path, check)


def _bounded(path: str, read: Callable[[], Result]) -> Result:
    """What a library reads, within the limit of memory; ``IwloraError`` for a damaged file."""
    with memory_limit(f"reading {path}", BATCH_MEMORY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on styles and the like
        try:
            return read()
        except (IwloraError, MemoryError):
            raise
        except Exception as error:  # damaged XML makes the libraries raise nearly anything
            reason = truncate(str(error) or type(error).__name__)
            raise IwloraError(
                f"{path} is not a {ending(path)} file that can be read: {reason}"
            ) from error
