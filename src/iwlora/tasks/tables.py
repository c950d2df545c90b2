"""The user's own files, CSV, TSV, JSON Lines and Parquet: as a task, or as plain rows.

Quotes are CSV's: a quoted field may hold commas and line breaks. In TSV a quotation mark is a
character like any other, as it is in GLUE's files.
"""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, unknown
from iwlora.tasks.kinds.base import Kind
from iwlora.tasks.lines import existing, raise_all, read_lines
from iwlora.tasks.task import Task, columns

if TYPE_CHECKING:
    import datasets

# A tenth of each class is held out, by one shuffle for all runs: their scores stay comparable.
HELD_OUT = 10
HELD_OUT_SEED = 0
# Python's own limit for a field, 128 KiB, is less than a long document.
LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Table:
    """The wanted columns of a file, row by row, each with the line (Parquet: row) it stood in."""

    path: str
    numbers: list[int]
    rows: list[tuple[str, ...]]

    def place(self, row: int) -> str:
        """Where a complaint about a row should point: file and line."""
        return _place(self.path, self.numbers[row])


def load(
    train: str, validation: str | None, test: str | None, text: Sequence[str], label: str
) -> Task:
    """The task in the user's files; ids follow the sorted class names, numbers by value.

    Without ``validation`` a tenth of each class of ``train`` is held out, the same rows for every
    seed. ``test`` has labels, and is scored instead of ``validation``. Raises ``IwloraError``
    that lists what is wrong with the files.
    """
    tables: dict[str, Table] = {}
    problems: list[str] = []
    for split, path in (("train", train), ("validation", validation), ("test", test)):
        if path is not None:
            try:
                tables[split] = read(path, [*text, label])
            except IwloraError as error:
                problems.append(str(error))
    raise_all(problems)
    labels = _labels(tables["train"], label)
    ids = {name: number for number, name in enumerate(labels)}
    for table in tables.values():
        problems += [
            f"{table.place(row)}: label {name!r} is not in {train} (there: {', '.join(labels)})"
            for row, (*_, name) in enumerate(table.rows)
            if name not in ids
        ]
    raise_all(problems)
    rows = {
        split: [(*texts, ids[name]) for *texts, name in table.rows]
        for split, table in tables.items()
    }
    notes: tuple[str, ...] = ()
    if validation is None:
        total = len(rows["train"])
        rows["train"], rows["validation"] = _hold_out(rows["train"])
        if not rows["validation"]:
            raise IwloraError(
                f"{train}: no class has {HELD_OUT} rows to hold a tenth out for validation; "
                "give task.validation=FILE"
            )
        notes = (f"validation: {len(rows['validation'])} of the {total} rows of {train}, held out",)
    order = [split for split in ("train", "validation", "test") if split in rows]
    return Task(
        name=train,
        text=tuple(text),
        labels=labels,
        splits={split: columns(text, rows[split]) for split in order},
        metrics=("accuracy", "macro_f1"),
        notes=notes,
    )


def read_table(path: str, required_columns: Sequence[str]) -> list[dict[str, str]]:
    """The ``required_columns`` of each row of a file, in its order; other columns are left out.

    Raises ``IwloraError`` for a file that ``read`` refuses.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = file.write_text("id,text\\n7,It rains.\\n")
    >>> read_table(str(file), ["text"])
    [{'text': 'It rains.'}]
    """
    return [
        dict(zip(required_columns, row, strict=True)) for row in read(path, required_columns).rows
    ]


def read_rows(path: str, text: Sequence[str], kind: Kind) -> datasets.Dataset:
    """The ``text`` columns of each row of a file, as ``kind`` reads them."""
    import datasets

    rows = read_table(path, text)
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in text})


def read(path: str, wanted: Sequence[str]) -> Table:
    """The ``wanted`` columns of a CSV, TSV, JSON Lines or Parquet file, by its ending, as strings.

    Numbers and truth values are written out as JSON does; surrounding blanks are cut. Raises
    ``IwloraError`` with file and line for: an unknown ending, a missing or empty file, text that
    is not UTF-8, a missing or doubled column, a row with more or fewer fields than the header, an
    empty field.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise IwloraError(f"{path}: unknown file type {suffix!r} (accepted: {', '.join(READERS)})")
    table = Table(path, [], [])
    problems: list[str] = []
    for number, values in READERS[suffix](path, wanted, problems):
        row = []
        for name, value in zip(wanted, values, strict=True):
            try:
                row.append(_cell(value))
            except ValueError as error:
                problems.append(f"{_place(path, number)}: column {name!r} {error}")
        if len(row) == len(wanted):
            table.numbers.append(number)
            table.rows.append(tuple(row))
    raise_all(problems)
    if not table.rows:
        raise IwloraError(f"{path} holds no rows")
    return table


def _place(path: str, number: int) -> str:
    unit = "row" if Path(path).suffix.lower() == ".parquet" else "line"
    return f"{path}, {unit} {number}"


def _cell(value: Any) -> str:
    """The text of one field; the ``ValueError`` says what it is instead."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("is empty")
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"holds a {type(value).__name__}, not text or a number")
    text = value.strip()
    if not text:
        raise ValueError("is empty")
    return text


def _labels(train: Table, label: str) -> tuple[str, ...]:
    found = {row[-1] for row in train.rows}
    if len(found) < 2:
        raise IwloraError(
            f"{train.path}: column {label!r} holds one class only ({found.pop()!r}); "
            "at least 2 are needed"
        )
    if all(re.fullmatch(r"[+-]?\d+", name) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


Rows = list[tuple[Any, ...]]


def _hold_out(rows: Rows) -> tuple[Rows, Rows]:
    """(the rows that stay, a tenth of each class), both in the file's order."""
    order = list(range(len(rows)))
    random.Random(HELD_OUT_SEED).shuffle(order)
    quota = {name: count // HELD_OUT for name, count in Counter(row[-1] for row in rows).items()}
    held = set()
    for index in order:
        if quota[rows[index][-1]] > 0:
            quota[rows[index][-1]] -= 1
            held.add(index)
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def _positions(path: str, header: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the wanted columns stand in a header."""
    problems = [
        f"{path}: {unknown('column', name, header)}"
        if name not in header
        else f"{path}: the header has column {name!r} {header.count(name)} times"
        for name in wanted
        if header.count(name) != 1
    ]
    raise_all(problems)
    return [header.index(name) for name in wanted]


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimited(
    path: str, wanted: Sequence[str], problems: list[str], delimiter: str, quoting: int
) -> Iterator[tuple[int, list[str]]]:
    records = _records(path, delimiter, quoting)
    _, header = next(records, (1, []))
    positions = _positions(path, header, wanted)
    for number, fields in records:
        if len(fields) == len(header):
            yield number, [fields[position] for position in positions]
        else:
            problems.append(
                f"{_place(path, number)}: {len(fields)} fields, the header has {len(header)}"
            )


def _records(path: str, delimiter: str, quoting: Any) -> Iterator[tuple[int, list[str]]]:
    """(the line where it starts, the fields) of each record; blank lines are passed over."""
    lines = (f"{line}\n" for _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            with _long_fields():
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise IwloraError(f"{_place(path, start)}: {error}") from error
        if fields:
            yield start, fields


def _json_lines(
    path: str, wanted: Sequence[str], problems: list[str]
) -> Iterator[tuple[int, list[Any]]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        place = _place(path, number)
        try:
            record = json.loads(line)
        except ValueError as error:
            problems.append(f"{place}: not a JSON object on one line ({error})")
            continue
        if not isinstance(record, dict):
            problems.append(f"{place}: a {type(record).__name__} instead of a JSON object")
            continue
        absent = [name for name in wanted if name not in record]
        problems += [f"{place}: {unknown('column', name, record)}" for name in absent]
        if not absent:
            yield number, [record[name] for name in wanted]


def _parquet(
    path: str,
    wanted: Sequence[str],
    problems: list[str],
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    import pyarrow
    from pyarrow import parquet

    source = existing(path)
    try:
        with parquet.ParquetFile(source) as file:
            _positions(path, file.schema_arrow.names, wanted)
            number = 0
            for batch in file.iter_batches(columns=list(wanted)):
                fields = (batch.column(name).to_pylist() for name in wanted)
                for values in zip(*fields, strict=True):
                    number += 1
                    yield number, values
    except (pyarrow.ArrowException, OSError) as error:
        raise IwloraError(f"{path} is not a Parquet file that can be read: {error}") from error


Reader = Callable[[str, Sequence[str], list[str]], Iterator[tuple[int, Sequence[Any]]]]
READERS: Mapping[str, Reader] = {
    ".csv": partial(_delimited, delimiter=",", quoting=csv.QUOTE_MINIMAL),
    ".tsv": partial(_delimited, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
