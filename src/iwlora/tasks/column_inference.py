"""Inferring the columns and the kind of a task in the user's files from names and first rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.tables.records import columns_of, read_records
from iwlora.tasks.kinds import KINDS, Kind
from iwlora.tasks.kinds.cells import parse_number, unread_numbers_note, written_list
from iwlora.tasks.kinds.label_separator import (
    divides_numbers,
    guess_separator,
    likely_separator,
    undivided_note,
)
from iwlora.tasks.kinds.multi_label import MultiLabel

if TYPE_CHECKING:
    from iwlora.tasks.spec import TaskSpec

# Kinds whose columns have usual names: (kind, text columns, possible names of the label column).
# Without a name for the label, the label is in the text.
COLUMN_NAMES: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]] = (
    ("instruction", ("messages", "tools"), ()),
    ("instruction", ("messages",), ()),
    ("instruction", ("conversations", "tools"), ()),
    ("instruction", ("conversations",), ()),
    ("instruction", ("prompt", "tools"), ("completion", "response")),
    ("instruction", ("prompt",), ("completion", "response")),
    ("instruction", ("instruction", "input"), ("output", "response")),
    ("instruction", ("instruction",), ("output", "response")),
    ("question-answering", ("question", "context"), ("answers", "answer")),
    ("token-labels", ("tokens",), ("ner_tags", "tags", "labels", "pos_tags")),
    ("token-labels", ("words",), ("ner_tags", "tags", "labels", "pos_tags")),
    ("seq2seq", ("source",), ("target",)),
    ("seq2seq", ("document",), ("summary",)),
    ("seq2seq", ("article",), ("highlights", "summary")),
    ("seq2seq", ("input",), ("output", "target")),
    ("seq2seq", ("text",), ("summary",)),
)
TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("text1", "text2"),
)
SINGLE_TEXTS = ("text", "sentence", "review", "content", "comment", "tweet", "question", "document")
LABELS = ("label", "labels", "class", "category", "target", "score", "rating", "sentiment")
# The kind is inferred from this many rows of each training file.
SAMPLE_ROWS = 200
_HOW = "if it does not, give task.kind={name: multi-label, separator: '...'}, or another kind"
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Columns:
    """The kind of the task, and its columns; ``notes`` say what was inferred.

    Without label columns the label is in the text (the last turn of a chat), unless ``unlabelled``.
    Rows with an equal value of ``group`` stay together where training rows are held out.
    """

    kind: Kind
    text: tuple[str, ...]
    label: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unlabelled: bool = False
    group: str | None = None


def infer_columns(spec: TaskSpec) -> Columns:
    """The columns and the kind of ``spec``; what it leaves open is inferred where obvious.

    Raises:
        IwloraError: It is not obvious; the message names the columns of the file.
    """
    path = str(spec.train)
    text = tuple(spec.text or ())
    label = (spec.label,) if isinstance(spec.label, str) else tuple(spec.label or ())
    names = [*text, *label] if text and label else columns_of(path)
    usual = _usual_columns(names, text, label, spec.kind_name)
    kind_name = spec.kind_name
    if usual:
        kind_name, text, label = usual
    else:
        text = text or _text_columns(names, label)
        label = label or tuple(name for name in LABELS if name in names and name not in text)[:1]
    if not text or not (label or usual):
        unclear = "text" if not text else "label"
        raise IwloraError(
            f"{path}: it is not clear which column holds the {unclear}; give "
            f"task.{unclear}=COLUMN (columns: {', '.join(names) or 'none'})"
        )
    sample = [row for source in spec.sources for row in _first_rows(source, text, label)]
    is_inferred = kind_name is None
    try:
        kind_name = kind_name or _infer_kind(sample, label, not spec.former_kind_defaults)
    except ValueError as error:
        raise IwloraError(f"{spec.title}: column {label[0]!r} {error}") from None
    kind = spec.build_kind(KINDS[kind_name]())
    _check_count(kind, text, label)
    notes = _notes(spec, kind, text, label, names)
    if isinstance(kind, MultiLabel) and kind.separator is None and len(label) == 1:
        cells = [row[-1] for row in sample if isinstance(row[-1], str)]
        separator = likely_separator(cells)
        kind = kind.model_copy(update={"separator": separator})
        if any(separator in cell for cell in cells if written_list(cell) is None):
            notes = (*notes, f"{separator!r} separates the classes of a cell; {_HOW}")
    if is_inferred and kind.name == "classification":
        notes = (*notes, *_notes_on_classes([row[-1] for row in sample]))
    return Columns(kind, text, label, notes, group=spec.group)


def _notes_on_classes(cells: Sequence[Any]) -> list[str]:
    """What a user may have meant by labels that are read as classes."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    notes = (unread_numbers_note(cells), undivided_note(texts))
    return [note for note in notes if note][:1]


def _notes(
    spec: TaskSpec, kind: Kind, text: Sequence[str], label: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    """What was inferred, and which columns are not read."""
    inferred = [f"text={' + '.join(text)}"] if not spec.text else []
    inferred += [f"label={' + '.join(label)}"] if not spec.label and label else []
    # Where the columns are given, classification is what a user expects without being told.
    if spec.kind_name is None and (inferred or kind.name != "classification"):
        inferred.append(f"kind={kind.name}")
    if not inferred:
        return ()
    unread = [name for name in names if name not in (*text, *label, spec.group)]
    rest = f"; not read: {', '.join(unread)}" if unread else ""
    return (f"inferred from {spec.title}: {', '.join(inferred)}{rest}",)


def _check_count(kind: Kind, text: Sequence[str], label: Sequence[str]) -> None:
    minimum, maximum = kind.text_columns
    if not minimum <= len(text) <= maximum:
        accepted = str(minimum) if minimum == maximum else f"{minimum} or {maximum}"
        raise IwloraError(
            f"task.text names {len(text)} columns; a task of kind {kind.name} has {accepted}"
        )
    if len(label) > 1 and not kind.several_label_columns:
        raise IwloraError(
            f"task.label names {len(label)} columns; a task of kind {kind.name} has one. Several "
            "columns of 0 and 1 are for task.kind=multi-label"
        )


def _usual_columns(
    names: Sequence[str], text: tuple[str, ...], label: tuple[str, ...], kind: str | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]] | None:
    """The first entry of ``COLUMN_NAMES`` that fits the file and what the recipe gives."""
    for name, texts, labels in COLUMN_NAMES:
        if not set(texts) <= set(names) or (kind and kind != name) or (text and text != texts):
            continue
        # Another label makes another kind: columns text and mood are not text and summary.
        if label and labels and not kind and not set(label) <= set(labels):
            continue
        label_columns = label or tuple(column for column in labels if column in names)[:1]
        if label_columns or not labels:
            return name, texts, label_columns
    return None


def _text_columns(names: Sequence[str], label: tuple[str, ...]) -> tuple[str, ...]:
    candidates = [name for name in names if name not in label]
    pair = next((pair for pair in TEXT_PAIRS if set(pair) <= set(candidates)), None)
    if pair:
        return pair
    single = tuple(name for name in SINGLE_TEXTS if name in candidates)[:1]
    return single or (tuple(candidates) if len(candidates) == 1 and label else ())


def _first_rows(path: str, text: Sequence[str], label: Sequence[str]) -> list[Sequence[Any]]:
    """The cells of the first rows; none of a file that cannot be read.

    Reading the whole file reports what is wrong with it, with the problems of the other files.
    """
    try:
        records = read_records(path, [*text, *label], [])
        return [values for _, values in islice(records, SAMPLE_ROWS)]
    except IwloraError:
        return []


def _infer_kind(rows: Sequence[Sequence[Any]], label: Sequence[str], several: bool) -> str:
    """From the labels of the first rows: lists, numbers with a fraction, or classes.

    Args:
        rows: The cells of the first rows.
        label: The label columns.
        several: Whether a cell of text may hold several classes with a separator between.
    """
    if len(label) > 1:
        return "multi-label"
    written = [str(values[-1]).strip() for values in rows]
    if several and divides_numbers(written):
        return "multi-label"
    labels = [_parse_cell(values[-1]) for values in rows]
    if any(isinstance(value, list) for value in labels):
        first_text = _parse_cell(rows[0][0])
        return "token-labels" if isinstance(first_text, list) else "multi-label"
    has_fraction = any(isinstance(value, float) and not value.is_integer() for value in labels)
    if all(isinstance(value, (int, float)) for value in labels) and has_fraction:
        return "regression"
    if several and guess_separator(value for value in labels if isinstance(value, str)):
        return "multi-label"
    return "classification"


def _parse_cell(value: Any) -> Any:
    """The number or list in a cell of text, where it is one."""
    if not isinstance(value, str):
        return value
    listed = written_list(value)
    if listed is not None:
        return listed
    try:
        return int(value) if _WHOLE_NUMBER.fullmatch(value.strip()) else parse_number(value)
    except ValueError:
        return value
