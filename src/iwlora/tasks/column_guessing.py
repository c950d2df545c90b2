"""Columns and kind of a task in the user's files, where the recipe leaves them open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.tabular import columns_of, read
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.kinds import KINDS, Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.multi_label import MultiLabel
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.kinds.token_labels import TokenLabels

if TYPE_CHECKING:
    from iwlora.tasks.spec import TaskSpec

# Kinds that are known by the names of their columns: texts, and the label, if it has a column.
NAMED: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]] = (
    ("instruction", ("messages",), ()),
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
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("text1", "text2"),
)
TEXTS = ("text", "sentence", "review", "content", "comment", "tweet", "question", "document")
LABELS = ("label", "labels", "class", "category", "target", "score", "rating", "sentiment")
# Rows from which the kind is guessed.
LOOKED_AT = 200


@dataclass(frozen=True)
class Columns:
    """What is what in a file; ``notes`` say what of it was guessed."""

    kind: Kind
    text: tuple[str, ...]
    label: tuple[str, ...]
    notes: tuple[str, ...] = ()
    derived: bool = False
    """Whether the label is in the text: the last turn of a chat."""


def guess(spec: TaskSpec) -> Columns:
    """The columns and the kind that ``spec`` gives; what it leaves open only where it is obvious.

    Raises ``IwloraError`` with the file's columns where it is not.
    """
    path = str(spec.train)
    text = tuple(spec.text or ())
    label = (spec.label,) if isinstance(spec.label, str) else tuple(spec.label or ())
    names = [*text, *label] if text and label else columns_of(path)
    named = _named(names, text, label, spec.kind_name)
    kind_name = spec.kind_name
    if named:
        kind_name, text, label = named
    else:
        text = text or _texts(names, label)
        label = label or tuple(name for name in LABELS if name in names and name not in text)[:1]
    if not text or not (label or named):
        absent = "task.text" if not text else "task.label"
        raise IwloraError(
            f"{path}: the columns do not tell which holds the {absent.removeprefix('task.')}; "
            f"give {absent}=COLUMN (columns: {', '.join(names) or 'none'})"
        )
    kind = spec.kind_of(KINDS[kind_name or _kind_of(path, text, label)]())
    _check_count(kind, text, label)
    told = [f"text={' + '.join(text)}"] if not spec.text else []
    told += [f"label={' + '.join(label)}"] if not spec.label and label else []
    # One class for a text is what everybody expects; other kinds are told.
    if spec.kind_name is None and (told or kind.name != Classification.name):
        told.append(f"kind={kind.name}")
    unread = [name for name in names if name not in (*text, *label)]
    rest = f"; not read: {', '.join(unread)}" if unread else ""
    notes = (f"guessed from {path}: {', '.join(told)}{rest}",) if told else ()
    return Columns(kind, text, label, notes, derived=not label)


def _check_count(kind: Kind, text: Sequence[str], label: Sequence[str]) -> None:
    least, most = kind.columns
    if not least <= len(text) <= most:
        accepted = str(least) if least == most else f"{least} or {most}"
        raise IwloraError(
            f"task.text names {len(text)} columns; a task of kind {kind.name} has {accepted}"
        )
    if len(label) > 1 and not kind.label_columns:
        raise IwloraError(
            f"task.label names {len(label)} columns; a task of kind {kind.name} has one, several "
            "columns of 0 and 1 are for task.kind=multi-label"
        )


def _named(
    names: Sequence[str], text: tuple[str, ...], label: tuple[str, ...], kind: str | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]] | None:
    for name, texts, labels in NAMED:
        if not set(texts) <= set(names) or (kind and kind != name) or (text and text != texts):
            continue
        # A label of another name makes it another kind: text and mood are no text and summary.
        if label and labels and not kind and not set(label) <= set(labels):
            continue
        there = label or tuple(one for one in labels if one in names)[:1]
        if there or not labels:
            return name, texts, there
    return None


def _texts(names: Sequence[str], label: tuple[str, ...]) -> tuple[str, ...]:
    free = [name for name in names if name not in label]
    pair = next((pair for pair in PAIRS if set(pair) <= set(free)), None)
    if pair:
        return pair
    one = tuple(name for name in TEXTS if name in free)[:1]
    return one or (tuple(free) if len(free) == 1 and label else ())


def _kind_of(path: str, text: tuple[str, ...], label: tuple[str, ...]) -> str:
    """By the first rows: lists, numbers with a fraction, or classes."""
    if len(label) > 1:
        return MultiLabel.name
    try:
        rows = [values for _, values in islice(read(path, [*text, *label], []), LOOKED_AT)]
    except IwloraError:  # told with the other files' problems when they are read
        return Classification.name
    labels = [_plain(values[-1]) for values in rows]
    if any(isinstance(one, list) for one in labels):
        words = [_plain(values[0]) for values in rows]
        return TokenLabels.name if isinstance(words[0], list) else MultiLabel.name
    if any(isinstance(one, float) and not one.is_integer() for one in labels) and all(
        isinstance(one, (int, float)) for one in labels
    ):
        return Regression.name
    return Classification.name


def _plain(value: Any) -> Any:
    """Text that is a JSON number or list as such."""
    if not isinstance(value, str):
        return value
    try:
        found = from_json(value)
    except ValueError:
        return value
    return found if isinstance(found, (int, float, list)) else value
