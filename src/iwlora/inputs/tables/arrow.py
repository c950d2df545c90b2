"""Parquet and Arrow files, batch by batch: a small one that unfolds into a huge table is refused.

Repeated values, empty pages and compression take hardly any space in a file. What its own metadata
say is checked before anything is unfolded, and what really comes out while it is read, since
metadata can lie.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.limits import check_growth, memory_limit
from iwlora.inputs.places import regular_file
from iwlora.inputs.tables.reading import Problems, Records, Table, nested_value, positions

BATCH_ROWS = 4096
BATCH_BYTES = 2**26
"""Fewer rows make a batch where they are large."""
BATCH_MEMORY = 2**30


class ColumnTable(Table):
    """A table that is stored by columns, with ``a.b`` for the field b of the column a."""

    unit: ClassVar[str] = "row"

    @abstractmethod
    def schema(self) -> Any:
        """Arrow's schema."""

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """The values of the columns, some thousand rows at a time.

        Raises ``IwloraError`` for a file that cannot be read, and for one that unfolds into too
        much.
        """

    def columns(self) -> list[str]:
        """The names of the columns, and of the fields inside of them."""
        schema = self.schema()
        return [*schema.names, *(name for field in schema for name in _inner_names(field))]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """As the file has them."""
        names = self.schema().names
        outer = [name if name in names else name.partition(".")[0] for name in columns]
        stored = list(dict.fromkeys(outer))
        positions(self.path, names, [n for n in columns if n.partition(".")[0] not in names])
        positions(self.path, names, stored)
        rows = enumerate(_rows_of(self.batches(stored)), start=1)
        return rows if stored == list(columns) else self._nested(rows, stored, columns, problems)

    def _nested(
        self, rows: Records, stored: Sequence[str], columns: Sequence[str], problems: Problems
    ) -> Records:
        for number, values in rows:
            row = dict(zip(stored, values, strict=True))
            try:
                yield number, [nested_value(row, name) for name in columns]
            except KeyError as error:
                missing = unknown("column", error.args[0], self.columns())
                problems.append((number, str(missing)))


class ParquetFile(ColumnTable):
    """A Parquet file."""

    def schema(self) -> Any:
        """That of the file."""
        with _open_parquet(self.path) as file:
            return file.schema_arrow

    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """Fewer rows at a time where they are large."""
        with _open_parquet(self.path) as file:
            size = regular_file(self.path).stat().st_size
            stated = _stated_bytes(file.metadata, columns)
            check_growth(self.path, stated, size)
            rows = max(1, BATCH_BYTES * file.metadata.num_rows // max(stated, 1))
            batches = file.iter_batches(batch_size=min(BATCH_ROWS, rows), columns=list(columns))
            names = class_names(file.schema_arrow)
            yield from bounded_batches(self.path, size, batches, columns, names)


class ArrowFile(ColumnTable):
    """An Arrow or Feather file, or a stream of batches as ``datasets`` writes it."""

    def schema(self) -> Any:
        """That of the file."""
        with _open_arrow(self.path) as reader:
            return reader.schema

    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """Parts of the stored batches."""
        size = regular_file(self.path).stat().st_size
        with _open_arrow(self.path) as reader:
            names, parts = class_names(reader.schema), _parts(self.path, reader)
            yield from bounded_batches(self.path, size, parts, columns, names)


def class_names(schema: Any) -> dict[str, list[str]]:
    """{column: the names of its classes} of a table whose metadata ``datasets`` wrote.

    The cells of such a column are numbers of classes, or lists of them.

    >>> import pyarrow
    >>> label = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    >>> written = json.dumps({"info": {"features": {"label": label, "id": {"_type": "Value"}}}})
    >>> schema = pyarrow.schema([("label", pyarrow.int64()), ("id", pyarrow.int64())])
    >>> class_names(schema.with_metadata({"huggingface": written}))
    {'label': ['cat', 'dog']}
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        of_items = {name: _feature_of_items(feature) for name, feature in features.items()}
        classes = {n: f for n, f in of_items.items() if f.get("_type") == "ClassLabel"}
        found = {name: feature.get("names") for name, feature in classes.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # nobody wrote it, or in a form that datasets does not read either
    return {
        name: names
        for name, names in found.items()
        if names and isinstance(names, list) and all(isinstance(n, str) for n in names)
    }


def _feature_of_items(feature: Any) -> Mapping[str, Any]:
    """What ``datasets`` says of the values of a column, or of the items of its lists."""
    items = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    return items if isinstance(items, dict) else {}


def bounded_batches(
    path: str,
    size: int,
    batches: Iterator[Any],
    columns: Sequence[str],
    names: Mapping[str, Sequence[str]],
) -> Iterator[list[list[Any]]]:
    """The values of the columns of each batch; a table far larger than its file is refused.

    Args:
        path: The file or folder, for an error message.
        size: Its bytes.
        batches: Of Arrow.
        columns: Their names.
        names: ``{column: names of classes}``, which numbers are replaced by.
    """
    total = 0
    while True:
        with memory_limit(f"a batch of rows of {path}", BATCH_MEMORY):
            batch = next(batches, None)
            if batch is None:
                return
            dense = [_without_dictionary(batch.column(name)) for name in columns]
            total += sum(column.nbytes for column in dense)
            values = [_python_values(path, column) for column in dense]
        check_growth(path, total, size)
        yield [
            [_named(path, value, names[column]) for value in cells] if column in names else cells
            for column, cells in zip(columns, values, strict=True)
        ]


def _named(path: str, value: Any, names: Sequence[str]) -> Any:
    """The name of a class id, or the names of a list of ids; an id below 0 has no name."""
    if isinstance(value, list):
        return [_named(path, item, names) for item in value]
    if not isinstance(value, int):
        return value
    if value >= len(names):
        raise IwloraError(f"{path} holds class {value}; it names {len(names)} classes")
    return None if value < 0 else names[value]


def _rows_of(batches: Iterable[Sequence[Sequence[Any]]]) -> Iterator[Sequence[Any]]:
    return chain.from_iterable(zip(*batch, strict=True) for batch in batches)


def _inner_names(field: Any, prefix: str = "") -> Iterator[str]:
    from pyarrow import types

    if types.is_struct(field.type):
        for inner in field.type:
            yield f"{prefix}{field.name}.{inner.name}"
            yield from _inner_names(inner, f"{prefix}{field.name}.")


def _stated_bytes(metadata: Any, columns: Sequence[str]) -> int:
    """The unfolded size of the columns as the file states it: at least eight bytes a value."""
    total = 8 * metadata.num_rows * len(columns)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = map(group.column, range(group.num_columns))
        total += sum(chunk.total_uncompressed_size for chunk in chunks if _is_in(chunk, columns))
    return int(total)


def _is_in(chunk: Any, columns: Sequence[str]) -> bool:
    return any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns)


def _without_dictionary(column: Any) -> Any:
    """A column of Arrow that stores each value by itself, also if it is repeated."""
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _python_values(path: str, column: Any) -> list[Any]:
    """The values of a column; ``IwloraError`` for one that Python has not: a date in year 10000."""
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError) as error:
        raise IwloraError(f"{path} has a value that cannot be read: {error}") from error
    return values


@contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    """The ``ParquetFile`` at a path."""
    from pyarrow import ArrowException, parquet

    source = regular_file(path)
    try:
        with parquet.ParquetFile(source) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise IwloraError(f"{path} is not a Parquet file that can be read: {error}") from error


@contextmanager
def _open_arrow(path: str) -> Iterator[Any]:
    """The reader of the batches at a path; what is mapped into memory takes none."""
    from pyarrow import ArrowException, ipc, memory_map

    source = regular_file(path)
    with source.open("rb") as stream:
        is_file = stream.read(6) == b"ARROW1"
    try:
        with memory_map(str(source)) as mapped:
            yield ipc.open_file(mapped) if is_file else ipc.open_stream(mapped)
    except (ArrowException, OSError) as error:
        raise IwloraError(f"{path} is not an Arrow file that can be read: {error}") from error


def _parts(path: str, reader: Any) -> Iterator[Any]:
    from pyarrow import RecordBatchFileReader

    is_file = isinstance(reader, RecordBatchFileReader)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)
