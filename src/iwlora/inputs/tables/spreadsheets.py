"""Spreadsheets: .xlsx by openpyxl, and .ods, of which only the XML of the cells is read."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time
from itertools import islice
from typing import Any, ClassVar, TypeVar
from xml.etree.ElementTree import Element, iterparse

from iwlora.errors import IwloraError, truncate
from iwlora.extras import locate_package
from iwlora.inputs.limits import check_growth, memory_limit
from iwlora.inputs.places import regular_file
from iwlora.inputs.tables.arrow import BATCH_MEMORY
from iwlora.inputs.tables.reading import (
    Problems,
    Records,
    Table,
    ending,
    numbered_columns,
    positions,
)

Result = TypeVar("Result")
Rows = Iterator[tuple[int, Sequence[Any]]]

MOST_ROWS, MOST_COLUMNS = 2**20, 2**14
"""Of a sheet of Excel."""
_BYTES_PER_CELL = 8
_BATCH_ROWS = 256
_DEFINITIONS = re.compile(rb"<!(DOCTYPE|ENTITY)")
_OFFICE, _TABLE, _TEXT = (
    f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}" for name in ("office", "table", "text")
)
_SIGNS = {f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n"}


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
                wrong = f"{len(cells)} cells, the header has {len(header)}"
                way_out = "give each column a name, or empty the cells beside the table"
                problems.append((number, f"{wrong}; {way_out}"))

    def notes(self) -> list[str]:
        """Which sheet is read, where there are several."""
        with _open(self.path) as book:
            names = _bounded(self.path, book.names)
        if len(names) < 2:
            return []
        return [
            f"{self.path}: the sheet {names[0]!r} is read, the first of {len(names)}; save another "
            "one as a file of its own"
        ]

    def _cells(self) -> Iterator[tuple[int, list[Any]]]:
        """(row from 1, cells without empty ones at the end) of each row that is not empty."""
        size, count = regular_file(self.path).stat().st_size, 0
        with _open(self.path) as book:
            while batch := _bounded(self.path, lambda: list(islice(book.rows, _BATCH_ROWS))):
                count += sum(len(row) for _, row in batch)
                check_growth(self.path, _BYTES_PER_CELL * count, size)
                if batch[-1][0] > MOST_ROWS or any(len(row) > MOST_COLUMNS for _, row in batch):
                    raise IwloraError(
                        f"{self.path} has more than {MOST_ROWS:,} rows or {MOST_COLUMNS:,} "
                        "columns; write it as CSV or Parquet"
                    )
                for number, row in batch:
                    cells = [_plain(cell) for cell in row]
                    while cells and cells[-1] is None:
                        cells.pop()
                    if cells:
                        yield number, cells


def _plain(cell: Any) -> Any:
    """A cell with a text for a date or a time, and None for an empty text."""
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    return None if cell == "" else cell


@dataclass
class _Book:
    """The names of the sheets, and the numbered rows of the first one."""

    names: Callable[[], list[str]]
    rows: Rows


@contextmanager
def _open(path: str) -> Iterator[_Book]:
    is_excel = ending(path) == ".xlsx"
    if is_excel:
        locate_package("openpyxl", path)
    _check_archive(path)
    with _excel_book(path) if is_excel else _open_document(path) as book:
        yield book


@contextmanager
def _excel_book(path: str) -> Iterator[_Book]:
    from openpyxl import load_workbook

    file = regular_file(path)
    book = _bounded(path, lambda: load_workbook(file, read_only=True, data_only=True))
    try:
        if not book.worksheets:
            raise IwloraError(f"{path} has no sheet with cells")
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what the file says of its size may be wrong
        names = [sheet.title for sheet in book.worksheets]
        yield _Book(lambda: names, enumerate(sheet.iter_rows(values_only=True), start=1))
    finally:
        book.close()


@contextmanager
def _open_document(path: str) -> Iterator[_Book]:
    with zipfile.ZipFile(regular_file(path)) as archive:
        yield _Book(lambda: _sheet_names(archive), _document_rows(archive))


def _elements(archive: zipfile.ZipFile) -> Iterator[Element]:
    """The elements of an OpenDocument's content as they end; rows that were read are emptied."""
    with archive.open("content.xml") as stream:
        for _, element in iterparse(stream):
            yield element
            if element.tag == f"{_TABLE}table-row":
                element.clear()


def _sheet_names(archive: zipfile.ZipFile) -> list[str]:
    tables = (element for element in _elements(archive) if element.tag == f"{_TABLE}table")
    return [table.get(f"{_TABLE}name", "") for table in tables]


def _document_rows(archive: zipfile.ZipFile) -> Rows:
    """The rows of the first table that are not empty. Equal cells and rows stand there once."""
    number = 1
    for element in _elements(archive):
        if element.tag == f"{_TABLE}table":
            return
        if element.tag != f"{_TABLE}table-row":
            continue
        cells: list[Any] = []
        empty = 0
        for cell in element:
            value, count = _value(cell), int(cell.get(f"{_TABLE}number-columns-repeated", 1))
            if value is None:
                empty += count
            else:
                most = MOST_COLUMNS + 1  # which is then refused
                cells += [*[None] * min(empty, most), *[value] * min(count, most)]
                empty = 0
        count = int(element.get(f"{_TABLE}number-rows-repeated", 1))
        if cells and number + count > MOST_ROWS + 1:
            yield MOST_ROWS + 1, cells  # which is then refused
        elif cells:
            yield from ((number + n, cells) for n in range(count))
        number += count


def _value(cell: Element) -> Any:
    """The number, truth value or text of a cell of an OpenDocument; None for an empty one."""
    kind = cell.get(f"{_OFFICE}value-type")
    if kind in ("float", "percentage", "currency"):
        number = float(cell.get(f"{_OFFICE}value", "nan"))
        return int(number) if number.is_integer() else number
    if kind == "boolean":
        return cell.get(f"{_OFFICE}boolean-value") == "true"
    for name in ("string-value", "date-value", "time-value"):
        if (text := cell.get(f"{_OFFICE}{name}")) is not None:
            return text
    paragraphs = [_text(part) for part in cell if part.tag == f"{_TEXT}p"]
    return "\n".join(paragraphs) or None


def _text(element: Element) -> str:
    """The text of an element, but for the comments in it."""
    if element.tag in (f"{_OFFICE}annotation", f"{_TEXT}note"):
        return ""
    if element.tag == f"{_TEXT}s":
        return " " * min(int(element.get(f"{_TEXT}c", 1)), MOST_COLUMNS)
    inner = "".join(_text(part) + (part.tail or "") for part in element)
    return _SIGNS.get(element.tag, "") + (element.text or "") + inner


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
