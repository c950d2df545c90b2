"""Parquet files, batch by batch: a small one that unfolds into a huge table is refused.

Repeated values, empty pages and compression take hardly any space in a file. What its own metadata
say is checked before anything is unfolded, and what really comes out while it is read, since
metadata can lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.limits import memory_limit
from iwlora.inputs.places import regular_file

BATCH_ROWS = 4096
BATCH_BYTES = 2**26
"""Fewer rows make a batch where they are large."""
BATCH_MEMORY = 2**30

SMALL_TABLE = 2**28
MOST_GROWTH = 100
"""A table may have as many bytes as ``SMALL_TABLE``, or so many times the bytes of its file."""


def column_names(path: str) -> list[str]:
    """The names of the columns; raises as :func:`column_batches`."""
    with _open(path) as file:
        return list(file.schema_arrow.names)


def column_batches(path: str, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
    """The values of the columns, some thousand rows at a time.

    Raises ``IwloraError`` for a file that cannot be read, and for one that unfolds into too much.
    """
    with _open(path) as file:
        size = regular_file(path).stat().st_size
        stated = _stated_bytes(file.metadata, columns)
        check_growth(path, stated, size)
        rows = max(1, BATCH_BYTES * file.metadata.num_rows // max(stated, 1))
        batches = file.iter_batches(batch_size=min(BATCH_ROWS, rows), columns=list(columns))
        total = 0
        while True:
            with memory_limit(f"a batch of rows of {path}", BATCH_MEMORY):
                batch = next(batches, None)
                if batch is None:
                    return
                dense = [without_dictionary(batch.column(name)) for name in columns]
                total += sum(column.nbytes for column in dense)
                values = [python_values(path, column) for column in dense]
            check_growth(path, total, size)
            yield values


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


def without_dictionary(column: Any) -> Any:
    """A column of Arrow that stores each value by itself, also if it is repeated."""
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def python_values(path: str, column: Any) -> list[Any]:
    """The values of a column; ``IwloraError`` for one that Python has not: a date in year 10000."""
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError) as error:
        raise IwloraError(f"{path} has a value that cannot be read: {error}") from error
    return values


def check_growth(path: str, unfolded: int, size: int) -> None:
    """Raise ``IwloraError`` for a table that takes much more memory than its file has bytes.

    Args:
        path: The file or folder.
        unfolded: Bytes in memory.
        size: Bytes on the disk.
    """
    most = max(SMALL_TABLE, MOST_GROWTH * size)
    if unfolded > most:
        raise IwloraError(
            f"{path} has {size / 1e6:,.1f} MB and unfolds into {unfolded / 1e6:,.0f} MB or more; "
            f"at most {most / 1e6:,.0f} MB are read of such a file; write it as several files, or "
            "as JSON Lines"
        )


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """The ``ParquetFile`` at a path."""
    from pyarrow import ArrowException, parquet

    source = regular_file(path)
    try:
        with parquet.ParquetFile(source) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise IwloraError(f"{path} is not a Parquet file that can be read: {error}") from error
