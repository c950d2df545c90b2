"""The dialect of a delimited file: its delimiter, its quoting, and whether it has a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from iwlora.inputs.images import ENDINGS
from iwlora.inputs.tables.reading import Reading, ending

Quoting: TypeAlias = Literal[0, 1, 2, 3]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_DEFAULT = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
SAMPLE_LINES = 200
TEXT_WORDS = 4  # a name of a column has fewer
_EXCEL = re.compile(r'"?sep=(.)"?')


@dataclass(frozen=True)
class Dialect:
    """How the fields of a record are divided."""

    delimiter: str
    quoting: Quoting
    header: bool
    first_line: int = 1
    """The line where the records begin; Excel puts ``sep=;`` before them."""

    def notes(self, path: str, reading: Reading) -> list[str]:
        """What was guessed."""
        notes = []
        name = DELIMITERS.get(self.delimiter, repr(self.delimiter))
        if reading.delimiter is None and self.delimiter != _DEFAULT.get(ending(path)):
            notes.append(f"{path}: fields are divided by the {name}; task.delimiter changes it")
        if reading.header is None and not self.header:
            notes.append(
                f"{path}: the first line looks like a row, so the columns are called column1, "
                "column2, …; if it is a header, give task.header=true"
            )
        return notes


def find_dialect(path: str, lines: Sequence[str], reading: Reading) -> Dialect:
    """The dialect of a file, from its first lines and what its user says.

    The usual delimiter of the ending counts where it fits; else the one that divides all records
    alike. The first record is a row where one of its fields comes again in its column and another
    one is a text of several words, or where it and all records have an image file in one column.
    """
    excel = _EXCEL.fullmatch(lines[0]) if lines else None
    delimiter = reading.delimiter or (excel[1] if excel else None)
    records = {
        sign: _records(lines[bool(excel) :], sign, _quoting(path, sign))
        for sign in ([delimiter] if delimiter else DELIMITERS)
    }
    if delimiter is None:
        default = _DEFAULT.get(ending(path), ",")
        delimiter = max(records, key=lambda sign: (_fit(records[sign]), sign == default))
        delimiter = delimiter if _fit(records[delimiter]) else default
    header = not _is_headless(records[delimiter]) if reading.header is None else reading.header
    return Dialect(delimiter, _quoting(path, delimiter), header, 1 + bool(excel))


def is_divided(path: str, lines: Sequence[str]) -> bool:
    """Whether a delimiter divides half of these lines, or more, into the fields of the first one.

    >>> is_divided("a.txt", ["text;label", "a b;x"]), is_divided("a.txt", ["Well, yes.", "No."])
    (True, False)
    """
    return any(
        2 * sum(len(record) == len(records[0]) > 1 for record in records) > len(lines) > 1
        for records in (_records(lines, sign, _quoting(path, sign)) for sign in DELIMITERS)
        if records
    )


def _quoting(path: str, delimiter: str) -> Quoting:
    is_plain = delimiter == "\t" and ending(path) in (".tsv", ".txt")
    return csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL


def _records(lines: Sequence[str], delimiter: str, quoting: Quoting) -> list[list[str]]:
    """The records of the sample, but for one that does not end in it."""
    reader = csv.reader(
        (f"{line}\n" for line in lines), delimiter=delimiter, quoting=quoting, strict=True
    )
    records = []
    try:
        for record in islice(reader, SAMPLE_LINES):
            if record:
                records.append(record)
    except csv.Error:  # reading the whole file says where
        pass
    return records


def _fit(records: Sequence[Sequence[str]]) -> float:
    """The share of records with as many fields as the first one; 0 for one field only."""
    if not records or len(records[0]) < 2:
        return 0.0
    return sum(len(record) == len(records[0]) for record in records) / len(records)


def _is_headless(records: Sequence[Sequence[str]]) -> bool:
    if len(records) < 3 or not all(field.strip() for field in records[0]):
        return False
    first, rest = records[0], [record for record in records[1:] if len(record) == len(records[0])]
    if rest and any(
        all(row[n].lower().endswith(ENDINGS) for row in (first, *rest)) for n in range(len(first))
    ):
        return True
    comes_again = any(any(row[n] == field for row in rest) for n, field in enumerate(first))
    return comes_again and any(len(field.split()) >= TEXT_WORDS for field in first)
