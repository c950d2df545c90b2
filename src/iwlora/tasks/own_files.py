"""The user's own files as a task, and rows to predict."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.lines import raise_all
from iwlora.inputs.tabular import place, read, splits_of
from iwlora.tasks.column_guessing import Columns, guess
from iwlora.tasks.kinds import Kind
from iwlora.tasks.task import Task, hold_out, in_memory

if TYPE_CHECKING:
    import datasets
    import pyarrow

    from iwlora.tasks.spec import TaskSpec

# A tenth of each class is held out, by one shuffle for all runs: their scores stay comparable.
HELD_OUT = 0.1
# Rows that stand in Python's memory at a time.
CHUNK = 4096
# Problems after which a file is not read on.
ENOUGH = 1000


@dataclass(frozen=True)
class Table:
    """The texts and the label of a file, row by row, each with the line that it stood in."""

    path: str
    numbers: array[int]
    rows: pyarrow.Table

    def place(self, row: int) -> str:
        """Where a complaint about a row should point: file and line."""
        return place(self.path, self.numbers[row])


def load(spec: TaskSpec) -> Task:
    """The task in the user's files; ids follow the sorted class names, numbers by value.

    Columns and kind that ``spec`` leaves open are guessed from names and first rows, and told in
    ``notes``. Without validation a tenth of each class of train is held out, the same rows for
    every seed. A test file has labels, and is scored instead of validation. Raises
    ``IwloraError`` that lists what is wrong with the files.
    """
    found = guess(spec)
    tables: dict[str, Table] = {}
    problems: list[str] = []
    for split, path in _files(spec).items():
        try:
            tables[split] = _gather(path, found, split)
        except IwloraError as error:
            problems.append(str(error))
    raise_all(problems)
    kind, train = found.kind, str(spec.train)
    labels = _labels(tables["train"], found)
    told = f"not in {train} (there: {', '.join(labels)})"
    splits = {
        split: _numbered(table, kind, labels, problems, told) for split, table in tables.items()
    }
    raise_all(problems)
    notes = found.notes
    if "validation" not in splits:
        total = len(splits["train"])
        splits["train"], splits["validation"] = hold_out(splits["train"], HELD_OUT)
        if not len(splits["validation"]):
            raise IwloraError(
                f"{train}: no class has {round(1 / HELD_OUT)} rows to hold a tenth out for "
                "validation; give task.validation=FILE"
            )
        held = len(splits["validation"])
        notes = (*notes, f"validation: {held} of the {total} rows of {train}, held out")
    order = [split for split in ("train", "validation", "test") if split in splits]
    return Task(
        name=train,
        text=found.text,
        labels=labels,
        splits={split: splits[split] for split in order},
        metrics=kind.metrics_for(labels),
        notes=notes,
        kind=kind,
    )


def read_rows(path: str, text: Sequence[str], kind: Kind) -> datasets.Dataset:
    """The ``text`` columns of each row of a file, as ``kind`` reads them, without labels.

    Raises ``IwloraError`` with file and line for what cannot be read.
    """
    return in_memory(_gather(path, Columns(kind, tuple(text), ()), "train").rows)


def _files(spec: TaskSpec) -> dict[str, str]:
    """{split: path}; a folder of several splits gives those that are not named."""
    files = {"train": str(spec.train), "validation": spec.validation, "test": spec.test}
    for split in splits_of(str(spec.train)):
        if split in files and files[split] is None:
            files[split] = str(spec.train)
    return {split: path for split, path in files.items() if path is not None}


def _gather(path: str, columns: Columns, split: str) -> Table:
    """Read a file, in chunks, into Arrow's memory; labels stay as the kind reads them."""
    import pyarrow

    text_type, label_type, _ = columns.kind.types()
    with_label = bool(columns.label) or columns.derived
    types = [text_type] * len(columns.text) + [label_type] * with_label
    names = [*columns.text, *["label"] * with_label]
    schema = pyarrow.schema(list(zip(names, types, strict=True)))
    problems: list[str] = []
    numbers, chunks = array("q"), []
    waiting: list[list[Any]] = []

    def flush() -> None:
        arrays = zip(zip(*waiting, strict=True), types, strict=True)
        parts = [pyarrow.array(list(values), type_) for values, type_ in arrays]
        chunks.append(pyarrow.record_batch(parts, schema=schema))
        waiting.clear()

    wanted = [*columns.text, *columns.label]
    for number, values in read(path, wanted, problems, split):
        try:
            waiting.append(_row(columns, values))
        except ValueError as error:
            problems.append(f"{place(path, number)}: {error}")
            if len(problems) >= ENOUGH:
                break
            continue
        numbers.append(number)
        if len(waiting) == CHUNK:
            flush()
    raise_all(problems)
    if waiting:
        flush()
    if not numbers:
        raise IwloraError(f"{path} holds no rows")
    return Table(path, numbers, pyarrow.Table.from_batches(chunks, schema))


def _row(columns: Columns, values: Sequence[Any]) -> list[Any]:
    """Texts and label of a row; the ``ValueError`` names the column."""
    kind, count = columns.kind, len(columns.text)
    row = [
        _cell(name, value, kind.further if place else kind.text)
        for place, (name, value) in enumerate(zip(columns.text, values[:count], strict=True))
    ]
    if len(columns.label) == 1:
        row.append(_cell(columns.label[0], values[count], kind.label))
    elif columns.label:
        row.append(kind.label(dict(zip(columns.label, values[count:], strict=True))))
    elif columns.derived:
        row.append(_cell(columns.text[0], row[0], kind.derived))
    else:
        return row
    kind.check(row)
    return row


def _cell(name: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"column {name!r} {error}") from None


def _labels(train: Table, columns: Columns) -> tuple[str, ...]:
    """The class names: sorted, numbers by value; columns of 0 and 1 in their own order."""
    kind = columns.kind
    if len(columns.label) > 1:
        return columns.label
    found: set[str] = set()
    for batch in train.rows.to_batches():
        for label in batch.column("label").to_pylist():
            found.update(kind.classes(label))
    if len(found) < kind.least_classes:
        raise IwloraError(
            f"{train.path}: column {columns.label[0]!r} holds one class only ({found.pop()!r}); "
            f"at least {kind.least_classes} are needed"
        )
    if all(re.fullmatch(r"[+-]?\d+", name) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def _numbered(
    table: Table, kind: Kind, labels: Sequence[str], problems: list[str], told: str
) -> datasets.Dataset:
    """The split with class ids for names; each row with another class adds to ``problems``."""
    import pyarrow

    ids: Mapping[str, int] = {name: number for number, name in enumerate(labels)}
    chunks, row = [], 0
    for batch in table.rows.to_batches():
        numbered = []
        for label in batch.column("label").to_pylist():
            strange = [name for name in kind.classes(label) if name not in ids]
            problems += [f"{table.place(row)}: label {name!r} is {told}" for name in strange]
            numbered.append(None if strange else kind.numbered(label, ids))
            row += 1
        chunks.append(pyarrow.array(numbered, kind.types()[2]))
    column = pyarrow.chunked_array(chunks)
    rows = table.rows.set_column(table.rows.column_names.index("label"), "label", column)
    return in_memory(rows)
