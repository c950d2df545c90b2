"""The rows of the user's files: CSV, TSV, JSON Lines, Parquet, and folders of ``datasets``.

In CSV, a quoted field may hold commas and line breaks. In TSV a quotation mark is a
character like any other, as it is in GLUE's files. Rows are read one by one: a file may be
larger than the memory.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.lines import raise_all, read_lines, readable_file
from iwlora.inputs.yaml_json import from_json

# Python's own limit for a field, 128 KiB, is less than a long document.
LONGEST_FIELD = 2**31 - 1

Records = Iterator[tuple[int, Sequence[Any]]]


def read_records(
    path: str, columns: Sequence[str], problems: list[str], split: str = "train"
) -> Records:
    """(line or row from 1, fields of the ``columns``) of each row of a file, by its ending.

    Fields are as the format gives them: text in CSV and TSV. What is wrong with single rows is
    added to ``problems``. Of a folder with several splits ``split`` is read. Raises
    ``IwloraError`` for an unknown ending, a missing or empty file, text that is not UTF-8, a
    missing or doubled column.
    """
    if _is_folder(path):
        return _folder(path, columns, split)
    return _reader(path)(path, columns, problems)


def columns_of(path: str, split: str = "train") -> list[str]:
    """The names of a file's columns; in JSON Lines, those of the first row."""
    if _is_folder(path):
        return list(_loaded(path, split).column_names)
    _reader(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        from pyarrow import parquet

        with _parquet_errors(path):
            return list(parquet.read_schema(readable_file(path)).names)
    if suffix in DELIMITED:
        return next(_fields(path, *DELIMITED[suffix]), (1, []))[1]
    first = next((line for _, line in read_lines(path) if line.strip()), "{}")
    try:
        row = from_json(first)
    except ValueError:
        return []
    return list(row) if isinstance(row, dict) else []


def record_location(path: str, number: int) -> str:
    """The file and the line (or row) of a record, for an error message."""
    by_row = Path(path).suffix.lower() == ".parquet" or _is_folder(path)
    return f"{path}, {'row' if by_row else 'line'} {number}"


def splits_of(path: str) -> list[str]:
    """The splits in a folder that ``DatasetDict.save_to_disk`` wrote; none of anything else."""
    listed = Path(path).expanduser() / "dataset_dict.json"
    if not listed.is_file():
        return []
    splits: list[str] = from_json(listed.read_text(encoding="utf-8"))["splits"]
    return splits


def _is_folder(path: str) -> bool:
    folder = Path(path).expanduser()
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _reader(path: str) -> Reader:
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise IwloraError(
            f"{path}: unknown file type {suffix!r} (accepted: {', '.join(READERS)}, and a folder "
            "that datasets' save_to_disk wrote)"
        )
    return READERS[suffix]


def _positions(path: str, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    """The positions of the columns in a header."""
    problems = [
        f"{path}: {unknown('column', name, header)}"
        if name not in header
        else f"{path}: the header has column {name!r} {header.count(name)} times"
        for name in columns
        if header.count(name) != 1
    ]
    raise_all(problems)
    return [header.index(name) for name in columns]


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimited(
    path: str, columns: Sequence[str], problems: list[str], delimiter: str, quoting: int
) -> Records:
    records = _fields(path, delimiter, quoting)
    _, header = next(records, (1, []))
    positions = _positions(path, header, columns)
    for number, fields in records:
        if len(fields) == len(header):
            yield number, [fields[position] for position in positions]
        else:
            location = record_location(path, number)
            problems.append(f"{location}: {len(fields)} fields, the header has {len(header)}")


def _fields(path: str, delimiter: str, quoting: Any) -> Iterator[tuple[int, list[str]]]:
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
            raise IwloraError(f"{record_location(path, start)}: {error}") from error
        if fields:
            yield start, fields


def _json_lines(path: str, columns: Sequence[str], problems: list[str]) -> Records:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        location = record_location(path, number)
        try:
            record = from_json(line)
        except ValueError as error:
            problems.append(f"{location}: not a JSON object on one line ({error})")
            continue
        if not isinstance(record, dict):
            problems.append(f"{location}: a {type(record).__name__} instead of a JSON object")
            continue
        absent = [name for name in columns if name not in record]
        problems += [f"{location}: {unknown('column', name, record)}" for name in absent]
        if not absent:
            yield number, [record[name] for name in columns]


def _parquet(path: str, columns: Sequence[str], problems: list[str]) -> Records:
    from pyarrow import parquet

    source = readable_file(path)
    with _parquet_errors(path), parquet.ParquetFile(source) as file:
        _positions(path, file.schema_arrow.names, columns)
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=list(columns)):
            fields = (batch.column(name).to_pylist() for name in columns)
            for values in zip(*fields, strict=True):
                number += 1
                yield number, values


@contextmanager
def _parquet_errors(path: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise IwloraError(f"{path} is not a Parquet file that can be read: {error}") from error


def _folder(path: str, columns: Sequence[str], split: str) -> Records:
    import datasets

    rows = _loaded(path, split)
    _positions(path, rows.column_names, columns)
    rows = rows.select_columns(list(columns))
    inner = {name: getattr(feature, "feature", feature) for name, feature in rows.features.items()}
    names = {
        name: feature.names
        for name, feature in inner.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    number = 0
    for batch in rows.iter(4096):
        fields = [_named(batch[name], names.get(name)) for name in columns]
        for values in zip(*fields, strict=True):
            number += 1
            yield number, values


def _named(values: Sequence[Any], names: Sequence[str] | None) -> Sequence[Any]:
    """Class names for ids, or for lists of them; an id below 0 is none."""
    if names is None:
        return values
    return [
        _named(value, names)
        if isinstance(value, list)
        else None
        if value is None or value < 0
        else names[value]
        for value in values
    ]


def _loaded(path: str, split: str) -> Any:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(Path(path).expanduser()))
    except Exception as error:  # a damaged folder makes the loader raise nearly anything
        raise IwloraError(f"{path} is not a folder that datasets can load: {error}") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise IwloraError(f"{path} has no split {split!r}; it has {', '.join(dataset)}")
        return dataset[split]
    return dataset


DELIMITED = {".csv": (",", csv.QUOTE_MINIMAL), ".tsv": ("\t", csv.QUOTE_NONE)}
Reader = Callable[[str, Sequence[str], list[str]], Records]
READERS: Mapping[str, Reader] = {
    **{
        suffix: partial(_delimited, delimiter=delimiter, quoting=quoting)
        for suffix, (delimiter, quoting) in DELIMITED.items()
    },
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
