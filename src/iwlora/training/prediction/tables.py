"""A table of predictions, a row for each predicted row, as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iwlora.inputs.formulas import mark_formula
from iwlora.results.writing import replacing, write_text

Record = Mapping[str, Any]


def joined(rows: Iterable[Record], before: Iterable[Record], after: Iterable[Record]) -> list[Any]:
    """The cells of the user's rows, between cells of ours.

    A column of ours whose name is taken is called ``iwlora_<name>``.

    >>> joined([{"row": "a"}], [{"row": 0}], [{"prediction": "pos"}])
    [{'iwlora_row': 0, 'row': 'a', 'prediction': 'pos'}]
    """
    return [
        {**_added(first, row), **row, **_added(last, row)}
        for row, first, last in zip(rows, before, after, strict=True)
    ]


def as_csv(records: Sequence[Record]) -> str:
    """Records with the same columns as CSV; a list is written as JSON.

    Texts that begin like a formula are marked (:mod:`iwlora.inputs.formulas`).
    """
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in ([*records[0]], *(record.values() for record in records)):
        cells = [_cell(value) for value in row]
        # Before Python 3.13 a carriage return alone is not quoted, and would end the row.
        returns = any("\r" in cell for cell in cells if isinstance(cell, str))
        (quoted if returns else plain).writerow(cells)
    return text.getvalue()


def as_json_lines(records: Sequence[Record]) -> str:
    """Records as JSON Lines."""
    return "".join(f"{_json(record)}\n" for record in records)


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """Write records as Parquet; a column whose cells have several types is written as JSON."""
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name in records[0]:
        values = [record[name] for record in records]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, TypeError, OverflowError):
            columns[name] = pyarrow.array([_json(value) for value in values])
    with replacing(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def write_table(path: Path, records: Sequence[Record]) -> None:
    """Write records to a file, by its ending in ``WRITERS``."""
    WRITERS[path.suffix](path, records)


WRITERS: Mapping[str, Callable[[Path, Sequence[Record]], None]] = {
    ".csv": lambda path, records: write_text(path, as_csv(records)),
    ".jsonl": lambda path, records: write_text(path, as_json_lines(records)),
    ".parquet": write_parquet,
}


def _added(cells: Record, row: Record) -> dict[str, Any]:
    """Cells under names that the row does not have."""
    return {f"iwlora_{name}" if name in row else name: value for name, value in cells.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return _json(value)
    return mark_formula(value) if isinstance(value, str) else value


def _json(value: Any) -> str:
    """As JSON; what it has no notation for, such as a date of a Parquet file, as text."""
    return json.dumps(value, ensure_ascii=False, default=str)
