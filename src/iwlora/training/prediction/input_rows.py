"""The rows to predict: what the model reads of them, and what goes with them to the predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import datasets

from iwlora.errors import BadRow, BadRowsError, IwloraError, listed, raise_all, unknown
from iwlora.inputs.tables.folders.images import ImageFolder
from iwlora.inputs.tables.reading import Reading
from iwlora.inputs.tables.records import (
    columns_of,
    is_image_folder,
    notes_on,
    read_records,
    record_files,
    record_location,
    splits_of,
)
from iwlora.tasks import Task
from iwlora.tasks.columns.images import notes_on_dark_images
from iwlora.tasks.columns.infer import Columns
from iwlora.tasks.columns.parsed_file import parse_file
from iwlora.tasks.kinds.cells import whole_characters
from iwlora.tasks.kinds.contract import Prediction
from iwlora.tasks.splits import in_memory
from iwlora.training.prediction.tables import joined

_ID = "id"
_AS_IT_LOOKS = Reading()


@dataclass(frozen=True)
class InputRows:
    """Rows of a file, without labels.

    Args:
        rows: The text columns, and of images where they are.
        texts: {text column: its cells as the predictions show them}.
        places: {"line": where each row stands in the file}, and {"file": ...} in a folder of texts.
        ids: {column: its cells}, if the rows have ids.
        labels: {column: its cells} of the labels that the file gives, as they are written there.
        extra: The cells of a further column that was asked for; None: there is none.
        notes: What a reader should know of them.
    """

    rows: datasets.Dataset
    texts: Mapping[str, Sequence[Any]]
    places: Mapping[str, Sequence[Any]]
    ids: Mapping[str, Sequence[Any]]
    labels: Mapping[str, Sequence[Any]]
    extra: Sequence[Any] | None = None
    notes: Sequence[str] = ()

    def with_predictions(self, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
        """A record for each row: its number and place, id, texts and label, and its prediction."""
        count = len(self.rows)
        after = zip(_records(self.labels, count), predictions, strict=True)
        return joined(
            _records({**self.ids, **self.texts}, count),
            _records({"row": range(count), **self.places}, count),
            ({**label, **prediction} for label, prediction in after),
        )


def read_input(
    path: str,
    task: Task,
    id_column: str | None,
    max_rows: int | None,
    reading: Reading = _AS_IT_LOOKS,
    extra_column: str | None = None,
    bad: list[BadRow] | None = None,
    folder: Path | None = None,
) -> InputRows:
    """Read rows to predict.

    Args:
        path: A file with the task's text columns; or for any task on images, a folder of them.
        task: What was learned.
        id_column: The column with ids; None: ``id``, in upper or lower case, if there is one.
        max_rows: Read the first rows only; None: all.
        reading: How the file is read where its looks do not say it.
        extra_column: A column whose cells are wanted too, if the file has it and the task does not
            read it.
        bad: Gets the rows that cannot be read, which are left out; None: they are refused.
        folder: The folder of the images that cells name; None: that of the file.

    Raises:
        BadRowsError: Rows cannot be read, and ``bad`` is None, or no row can be read.
        IwloraError: The file cannot be read, or lacks a column.
    """
    if max_rows is not None and max_rows < 1:
        raise IwloraError(f"--max-rows {max_rows}: at least 1 is needed")
    are_images = task.kind.reads_images and is_image_folder(path)
    text = (ImageFolder.content,) if are_images else task.text
    columns = Columns(task.kind, text, (), unlabeled=True, reading=reading)
    parsed = parse_file(path, columns, "train", bad, most=max_rows, folder=folder)
    if bad and not parsed.line_numbers:
        raise BadRowsError(bad, [f"{path}: none of its rows can be used"])
    lines, names = parsed.line_numbers, columns_of(path, reading=reading)
    if id_column is not None and id_column not in names:
        raise IwloraError(f"{path}: --id: {unknown('column', id_column, names)}")
    file_of = record_files(path)
    files = {"file": [file_of(number) for number in lines]} if file_of else {}
    guessed = next((name for name in names if name.lower() == _ID), None)
    identity = id_column or guessed
    ids = {} if identity is None or identity in task.text else {identity: identity}
    has_extra = extra_column in names and extra_column not in task.text
    extra = _cells(path, str(extra_column), lines, reading) if has_extra else None
    labels = {name: name for name in task.label_columns if name in {*names} - {*task.text}}
    if len(labels) == 1:  # the name that it has in the predictions of a run
        labels = {"label": next(iter(labels))}
    rows = in_memory(parsed.rows)
    if text != task.text:
        rows = rows.rename_column(*text, *task.text)
    return InputRows(
        rows,
        {name: task.kind.shown_texts(rows, name) for name in task.text},
        {**files, "line": lines},
        {name: _cells(path, column, lines, reading) for name, column in ids.items()},
        {name: _cells(path, column, lines, reading) for name, column in labels.items()},
        extra,
        notes_on_dark_images(rows) if task.kind.reads_images else (),
    )


def cells_of_column(path: str, column: str, reading: Reading = _AS_IT_LOOKS) -> Iterator[Any]:
    """The cells of a column of a file, one after another; none if there is no such column."""
    if column in columns_of(path, reading=reading):
        # A row that lacks the column is no problem here, so the list of these is not looked at.
        yield from (cell for _, (cell,) in read_records(path, [column], [], reading=reading))


def notes_on_input(path: str, reading: Reading = _AS_IT_LOOKS) -> Iterator[str]:
    """Which parts of a folder are not predicted."""
    if splits := splits_of(path):
        yield f"{path} has the parts {listed(splits)}, of which train alone is predicted"
    if record_files(path):
        yield from notes_on(path, reading=reading)


def _cells(path: str, column: str, lines: Sequence[int], reading: Reading) -> list[Any]:
    """The cells of a column in the rows at these lines; None where a row has no such column."""
    last, problems = lines[-1], list[str]()
    cells: dict[int, Any] = {}
    # A row that lacks the column is no problem here, so the list of these is not looked at.
    records = read_records(path, [column], [], reading=reading)
    for number, (cell,) in takewhile(lambda record: record[0] <= last, records):
        try:
            cells[number] = whole_characters(cell)
        except ValueError as error:
            problems.append(f"{record_location(path, number)}: column {column!r} {error}")
    raise_all(problems)
    return [cells.get(number) for number in lines]


def _records(columns: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """Columns of ``count`` cells as rows."""
    if not columns:
        return [{} for _ in range(count)]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
