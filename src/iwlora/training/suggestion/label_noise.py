"""Rows with the same text or image and different labels: one of the labels may be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from iwlora.errors import BadRow
from iwlora.inputs.tables.records import record_location
from iwlora.tasks.columns.images import image_facts
from iwlora.tasks.columns.infer import infer_columns
from iwlora.tasks.columns.parsed_file import parse_file
from iwlora.tasks.metrics.scripts import unicode_tokens
from iwlora.tasks.spec import TaskSpec
from iwlora.tasks.task import Task
from iwlora.tasks.user_files import files_of

MOST_ROWS = 100_000
"""Of each file or split the first rows are compared."""
_SHOWN = 3


@dataclass(frozen=True)
class LabeledRow:
    """A text with its label in words, and where it is; of an image the name, and no text."""

    place: str
    text: str
    label: str


@dataclass(frozen=True)
class LabelNoise:
    """Texts with more than one label.

    Args:
        texts: How many such texts there are, equal up to case, spaces and punctuation.
        rows: How many rows have one of them.
        first: Of the first ones, two rows each with different labels.
        compared: How many rows were compared.
    """

    texts: int
    rows: int
    first: tuple[tuple[LabeledRow, LabeledRow], ...]
    compared: int


def find_label_noise(task: Task, spec: TaskSpec) -> LabelNoise | None:
    """The texts or images of a task that stand with different labels; None without classes.

    Of the user's files the rows are compared as they are in the files, with their lines. Images are
    compared as the task has them: to read the files again would open each once more.
    """
    if not task.kind.has_classes:
        return None
    first: dict[int, LabeledRow] = {}
    counts: dict[int, int] = {}
    pairs: dict[int, tuple[LabeledRow, LabeledRow]] = {}
    compared = 0
    from_files = spec.train and not task.kind.reads_images
    for texts, row in _rows_of_files(spec) if from_files else _rows_of_splits(task):
        # Hashes take less memory. A text without words, such as of emoji, is compared as it is.
        key = hash(tuple(tuple(unicode_tokens(text)) or text for text in texts))
        before = first.setdefault(key, row)
        counts[key] = counts.get(key, 0) + 1
        compared += 1
        if before.label != row.label:
            pairs.setdefault(key, (before, row))
    rows = sum(counts[key] for key in pairs)
    return LabelNoise(len(pairs), rows, tuple(pairs.values())[:_SHOWN], compared)


_Located = tuple[list[str], LabeledRow]


def _rows_of_files(spec: TaskSpec) -> Iterator[_Located]:
    columns, bad = infer_columns(spec), list[BadRow]()
    for split, path in files_of(spec):
        file = parse_file(path, columns, split, bad, most=MOST_ROWS)
        lines = iter(file.line_numbers)
        for batch in file.rows.to_batches():
            for *texts, label in zip(
                *(batch.column(name).to_pylist() for name in (*columns.text, "label")), strict=True
            ):
                yield _located(record_location(path, next(lines), split), texts, label)


def _rows_of_splits(task: Task) -> Iterator[_Located]:
    for name, split in task.splits.items():
        number, rows = 0, split.select(range(min(MOST_ROWS, len(split))))
        (images,) = image_facts(rows, "name") if task.kind.reads_images else [()]
        for batch in rows.select_columns([*task.text, "label"]).iter(4096):
            columns = (batch[column] for column in (*task.text, "label"))
            for *texts, label in zip(*columns, strict=True):
                number += 1
                place = f"{name}, row {number}"
                key, row = _located(place, texts, task.kind.readable_label(task, label))
                if task.kind.reads_images:
                    row = replace(row, place=images[number - 1] or place, text="")
                yield key, row


def _located(place: str, texts: list[Any], label: Any) -> _Located:
    words = [" ".join(text) if isinstance(text, list) else str(text) for text in texts]
    if isinstance(label, list):  # the order of the labels of words means something
        label = " ".join(label if isinstance(texts[0], list) else sorted(label))
    return words, LabeledRow(place, " | ".join(words), str(label))
