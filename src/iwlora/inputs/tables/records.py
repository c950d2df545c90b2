"""The rows of the user's files: CSV, TSV, JSON Lines, Parquet, and folders of ``datasets``.

In CSV, a quoted field may hold commas and line breaks. In TSV a quotation mark is a
character like any other, as it is in GLUE's files. Rows are read one by one: a file may be
larger than the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError, raise_all, unknown
from iwlora.inputs.limits import memory_limit
from iwlora.inputs.lines import BYTE_ORDER_MARK, read_lines
from iwlora.inputs.places import check_folder, inside, standard_input_file, user_path
from iwlora.inputs.tables.delimited import DELIMITED, read_fields
from iwlora.inputs.tables.parquet import (
    BATCH_MEMORY,
    BATCH_ROWS,
    check_growth,
    column_batches,
    column_names,
    python_values,
    without_dictionary,
)
from iwlora.inputs.yaml_json import parse_mapping, read_mapping

Records = Iterator[tuple[int, Sequence[Any]]]
Problems = list[tuple[int, str]]
"""(line or row, what is wrong with it) of the rows of a file that cannot be read."""


def read_records(
    path: str, columns: Sequence[str], problems: Problems, split: str = "train"
) -> Records:
    """(line or row from 1, fields of the ``columns``) of each row of a file, by its ending.

    Fields are as the format gives them: text in CSV and TSV. What is wrong with single rows is
    added to ``problems``. Of a folder with several splits ``split`` is read. Raises
    ``IwloraError`` for an unknown ending, a missing or empty file, text that is not UTF-8, a
    missing or doubled column.
    """
    if _is_folder(path):
        return _folder(path, columns, split)
    return READERS[_suffix(path)](path, columns, problems)


def columns_of(path: str, split: str = "train") -> list[str]:
    """The names of a file's columns; in JSON Lines, those of the first row."""
    if _is_folder(path):
        return list(_loaded(path, split).column_names)
    suffix = _suffix(path)
    if suffix == ".parquet":
        return column_names(path)
    if suffix in DELIMITED:
        return next(read_fields(path), (1, []))[1]
    first = next((line for _, line in read_lines(path) if line.strip()), "{}")
    try:
        return list(parse_mapping(first, path))
    except IwloraError:
        return []


def record_unit(path: str) -> str:
    """What the numbers of a file's records count: "line" or "row"."""
    by_row = Path(path).suffix.lower() == ".parquet" or _is_folder(path)
    return "row" if by_row else "line"


def record_location(path: str, number: int) -> str:
    """The file and the line (or row) of a record, for an error message."""
    return f"{path}, {record_unit(path)} {number}"


@contextmanager
def standard_input(name: str | None = None) -> Iterator[str]:
    """The path of a file with what standard input gives, until the block ends.

    Args:
        name: Its format: an ending of ``READERS`` without the point; None: by its first bytes.

    Raises:
        IwloraError: There is no such format, or too much to read.
    """
    if name is not None and f".{name}" not in READERS:
        accepted = [ending.removeprefix(".") for ending in READERS]
        raise unknown("format", name, accepted)
    with standard_input_file(lambda first: f".{name}" if name else _ending_of(first)) as path:
        yield str(path)


def _ending_of(first: bytes) -> str:
    """The ending of a file that begins with these bytes.

    >>> [_ending_of(first) for first in (b'{"text": "a"}', b"text\\tid\\n", b"text,id\\n")]
    ['.jsonl', '.tsv', '.csv']
    """
    begin = first.removeprefix(BYTE_ORDER_MARK).lstrip()
    for mark, ending in ((b"{", ".jsonl"), (b"[", ".json"), (b"PAR1", ".parquet")):
        if begin.startswith(mark):
            return ending
    header = begin.partition(b"\n")[0]
    return ".tsv" if b"\t" in header and b"," not in header else ".csv"


def splits_of(path: str) -> list[str]:
    """The splits in a folder that ``DatasetDict.save_to_disk`` wrote; none of anything else."""
    listed = user_path(path) / "dataset_dict.json"
    if not listed.is_file():
        return []
    splits = read_mapping(listed).get("splits")
    if not isinstance(splits, list):
        raise IwloraError(f"{listed} lists no splits")
    names = [str(split) for split in splits]
    if len(set(names)) < len(names):
        raise IwloraError(f"{listed} lists a split twice")
    return names


def _is_folder(path: str) -> bool:
    folder = user_path(path)
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _suffix(path: str) -> str:
    """The ending of a file, in lower case; ``IwloraError`` for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise IwloraError(
            f"{path}: unknown file type {suffix!r} (accepted: {', '.join(READERS)}, and a folder "
            "that datasets' save_to_disk wrote)"
        )
    return suffix


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


def _delimited(path: str, columns: Sequence[str], problems: Problems) -> Records:
    records = read_fields(path)
    _, header = next(records, (1, []))
    positions = _positions(path, header, columns)
    for number, fields in records:
        if len(fields) == len(header):
            yield number, [fields[position] for position in positions]
        else:
            problems.append((number, f"{len(fields)} fields, the header has {len(header)}"))


def _json_lines(path: str, columns: Sequence[str], problems: Problems) -> Records:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = parse_mapping(line, "it")
        except IwloraError as error:
            problems.append((number, f"{error}; each line must be a JSON object"))
            continue
        absent = [name for name in columns if name not in record]
        problems += [(number, str(unknown("column", name, record))) for name in absent]
        if not absent:
            yield number, [record[name] for name in columns]


def _parquet(path: str, columns: Sequence[str], problems: Problems) -> Records:
    _positions(path, column_names(path), columns)
    return _numbered_rows(column_batches(path, columns))


def _folder(path: str, columns: Sequence[str], split: str) -> Records:
    rows = _loaded(path, split)
    _positions(path, rows.column_names, columns)
    features = [rows.features[name] for name in columns]
    # Of a list the feature is that of its items. Only classes have names.
    class_names = [getattr(getattr(f, "feature", f), "names", None) for f in features]
    return _numbered_rows(
        [
            [_named(value, names) for value in values] if names else values
            for values, names in zip(batch, class_names, strict=True)
        ]
        for batch in _folder_batches(path, rows.select_columns(list(columns)))
    )


def _folder_batches(path: str, rows: Any) -> Iterator[list[list[Any]]]:
    """The values of all columns, as they are stored: a file that a row names is not opened."""
    batches = rows.with_format("arrow").iter(BATCH_ROWS)
    size = sum(file.stat().st_size for file in user_path(path).rglob("*.arrow"))
    total = 0
    while True:
        with memory_limit(f"a batch of rows of {path}", BATCH_MEMORY):
            table = next(batches, None)
            if table is None:
                return
            dense = [without_dictionary(column) for column in table.columns]
            total += sum(column.nbytes for column in dense)
            values = [python_values(path, column) for column in dense]
        check_growth(path, total, size)
        yield values


def _numbered_rows(batches: Iterable[Sequence[Sequence[Any]]]) -> Records:
    """The rows of batches of columns, numbered from 1."""
    return enumerate(chain.from_iterable(zip(*batch, strict=True) for batch in batches), start=1)


def _named(value: Any, names: Sequence[str]) -> Any:
    """The name of a class id, or a list of names for a list of ids; an id below 0 has no name."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return None if value is None or value < 0 else names[value]


def _loaded(path: str, split: str) -> Any:
    import datasets

    folder = user_path(path)
    check_folder(folder)
    for name in splits_of(path):
        inside(folder, name)
    for state in folder.rglob("state.json"):
        for name in _files_in(state):
            inside(state.parent, name)
    try:
        with memory_limit(f"opening {path}", BATCH_MEMORY):
            dataset = datasets.load_from_disk(str(folder))
    except IwloraError:
        raise
    except Exception as error:  # a damaged folder makes the loader raise nearly anything
        raise IwloraError(f"{path} is not a folder that datasets can load: {error}") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise IwloraError(f"{path} has no split {split!r}; it has {', '.join(dataset)}")
        return dataset[split]
    return dataset


def _files_in(state: Path) -> list[str]:
    """The files that the ``state.json`` of a saved data set names."""
    files = read_mapping(state).get("_data_files")
    if not isinstance(files, list) or not all(isinstance(f, dict) for f in files):
        raise IwloraError(f"{state} lists no files of data")
    names = [str(file.get("filename")) for file in files]
    if len(set(names)) < len(names):
        raise IwloraError(f"{state} lists a file of data twice")
    return names


JSON_LINES = (".jsonl", ".ndjson", ".json")
READERS: Mapping[str, Callable[[str, Sequence[str], Problems], Records]] = {
    **dict.fromkeys(DELIMITED, _delimited),
    **dict.fromkeys(JSON_LINES, _json_lines),
    ".parquet": _parquet,
}
