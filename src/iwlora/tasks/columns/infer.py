"""Inferring the columns and the kind of a task in the user's files from names and first rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, is_of_system
from iwlora.inputs.tables.reading import Reading
from iwlora.inputs.tables.records import columns_of, is_image_folder, notes_on, read_records
from iwlora.inputs.yaml_json import assignment
from iwlora.tasks.columns.contents import Cells
from iwlora.tasks.columns.guess import Guess, guess_columns
from iwlora.tasks.columns.images import holds_images, image_column
from iwlora.tasks.columns.label_kind import infer_kind, notes_on_classes, numbers_in_order
from iwlora.tasks.columns.names import language_pair
from iwlora.tasks.kinds import KINDS, Kind
from iwlora.tasks.kinds.cells import written_list
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.label_separator import likely_separator
from iwlora.tasks.kinds.multi_label import MultiLabel

if TYPE_CHECKING:
    from iwlora.tasks.spec import TaskSpec

# The kind is inferred from this many rows of each training file.
SAMPLE_ROWS = 200
# Of a wider table the recipe names the columns: a guess among more is slow, and rarely right.
MOST_COLUMNS = 1000
# So many alternatives of a guess are named, and so many columns with an equal right.
_ALTERNATIVES, _CHOICES = 2, 8
_HOW = "if it does not, give task.kind={name: multi-label, separator: '...'}, or another kind"


@dataclass(frozen=True)
class Columns:
    """The kind of the task, and its columns; ``notes`` say what was inferred.

    ``alternatives`` has, for a field of the task that was inferred, assignments that may be right.

    Without label columns the label is in the text (the last turn of a chat), unless ``unlabeled``.
    Rows with an equal value of ``group`` stay together where training rows are held out.
    ``reading`` is how the files are read.
    """

    kind: Kind
    text: tuple[str, ...]
    label: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unlabeled: bool = False
    group: str | None = None
    reading: Reading = field(default_factory=Reading)
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def infer_columns(spec: TaskSpec) -> Columns:
    """The columns and the kind of ``spec``; what it leaves open is inferred where obvious.

    Raises:
        IwloraError: It is not obvious; the message names the columns of the file.
    """
    path = str(spec.train)
    given = Guess(spec.kind_name, tuple(spec.text or ()), _names(spec.label))
    both = (*given.text, *given.label) if given.text and given.label else ()
    names = both or tuple(columns_of(path, reading=spec.reading))
    if len(names) > MOST_COLUMNS:
        raise IwloraError(
            f"{path} has {len(names):,} columns, and they are guessed among {MOST_COLUMNS:,} at "
            f"most; give task.text and task.label. It begins with {', '.join(names[:_CHOICES])}"
        )
    unique = [name for name in names if names.count(name) == 1]
    cells = dict(
        zip(unique, zip(*_first_rows(path, unique, spec.reading), strict=True), strict=False)
    )
    candidates = [name for name in names if not _holds_fields(name, names)]
    given = _with_image(given, path, names, candidates, cells)
    inside = tuple(f"{name}." for name in given.text)
    candidates = [name for name in candidates if not name.startswith(inside)]
    guess = guess_columns([name for name in candidates if name != spec.group], cells, given)
    if guess.unclear:  # a group may be one of the texts
        guess = guess_columns(candidates, cells, given)
    if guess.unclear == "label" and is_image_folder(path):
        raise IwloraError(
            f"{path} has images outside of folders of classes; move the images of each class into "
            "a folder with its name, or give a table with their paths and labels as task.train"
        )
    image = image_column(names, cells)
    if guess.unclear == "text" and spec.kind_name and image:
        accepted = ", ".join(name for name, kind in KINDS.items() if kind().reads_images)
        raise IwloraError(
            f"{path}: column {image!r} holds images, and a task of kind {spec.kind_name} reads "
            f"texts; give the text as task.text, or take one of the kinds {accepted}"
        )
    if guess.unclear:
        raise IwloraError(f"{path}: {_unclear(guess, names)}")
    text, label, kind_name = guess.text, guess.label, spec.kind_name or guess.kind
    sample = [
        row for source in spec.sources for row in _first_rows(source, [*text, *label], spec.reading)
    ]
    is_inferred, are_images = kind_name is None, _are_images(text, cells)
    named = _with_image_kinds if are_images else str
    try:
        kind_name = kind_name or infer_kind(sample, label, not spec.former_kind_defaults)
        if is_inferred and are_images and f"image-{kind_name}" in KINDS:
            kind_name = f"image-{kind_name}"
    except ValueError as error:
        raise IwloraError(f"{spec.title}: column {label[0]!r} {named(str(error))}") from None
    kind = spec.build_kind(KINDS[kind_name]())
    _check_count(kind, text, label)
    others = {
        name: tuple(map(named, found))
        for name, found in _alternatives(spec, kind, guess, [row[-1] for row in sample]).items()
    }
    columns = Columns(
        kind, text, label, group=spec.group, reading=spec.reading, alternatives=others
    )
    notes = (*_notes_on_files(spec), *_notes(spec, columns, names))
    if isinstance(kind, MultiLabel) and kind.separator is None and len(label) == 1:
        written = [row[-1] for row in sample if isinstance(row[-1], str)]
        separator = likely_separator(written)
        columns = replace(columns, kind=kind.model_copy(update={"separator": separator}))
        if any(separator in cell for cell in written if written_list(cell) is None):
            notes = (*notes, f"{separator!r} separates the classes of a cell; {_HOW}")
    if is_inferred and isinstance(kind, Classification):
        notes = (*notes, *notes_on_classes([row[-1] for row in sample]))
    return replace(columns, notes=tuple(map(named, notes)))


def _with_image(
    given: Guess, path: str, names: Sequence[str], candidates: Sequence[str], cells: Cells
) -> Guess:
    """What is given, with the column of images as the text column of a task on images.

    A table that also has a text is one of texts, unless the recipe gives another kind.
    """
    asked = given.kind is not None and KINDS[given.kind]().reads_images
    if not given.text and (given.kind is None or asked):
        image = image_column(names, cells)
        is_certain = asked or image is None or is_image_folder(path)
        if image and (is_certain or not guess_columns(candidates, cells, given).text):
            given = replace(given, text=(image,))
    return replace(given, kind=None) if asked else given  # the label is found as for texts


def _are_images(text: Sequence[str], cells: Cells) -> bool:
    return len(text) == 1 and holds_images(cells.get(text[0], ()))


def _with_image_kinds(message: str) -> str:
    """A message with the names that the kinds have for images.

    >>> _with_image_kinds("give task.kind=regression or task.kind={name: multi-label}")
    'give task.kind=image-regression or task.kind={name: image-multi-label}'
    """
    named = r"(?<=task\.kind=)(\{name: )?(?=(?:classification|multi-label|regression)\b)"
    return re.sub(named, r"\g<0>image-", message)


def _names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _unclear(guess: Guess, names: Sequence[str]) -> str:
    """What is not clear about the columns, and the assignments that say it."""
    what = guess.unclear
    choices = guess.other_texts if what == "text" else guess.other_labels
    columns = f"(columns: {', '.join(names) or 'none'})"
    if not choices:
        return f"it is not clear which column holds the {what}; give task.{what}=COLUMN {columns}"
    given = ", ".join(_assignments(f"task.{what}", choices[:_CHOICES]))
    return f"several columns may hold the {what}; give one of {given} {columns}"


def _assignments(name: str, choices: Sequence[Sequence[str]]) -> tuple[str, ...]:
    columns = [choice[0] if len(choice) == 1 else choice for choice in choices]
    return tuple(assignment(name, value) for value in columns)


def _alternatives(
    spec: TaskSpec, kind: Kind, guess: Guess, labels: Sequence[Any]
) -> dict[str, tuple[str, ...]]:
    """{field of the task that was inferred: assignments that may be right instead}."""
    others = {}
    if not spec.text:
        others["text"] = _assignments("task.text", guess.other_texts[:_ALTERNATIVES])
    if not spec.label and guess.label:
        others["label"] = _assignments("task.label", guess.other_labels[:_ALTERNATIVES])
    # Where the columns are given, classification is what a user expects without being told.
    if spec.kind_name is None and (others or kind.name != "classification"):
        others["kind"] = _other_kinds(kind, guess, labels)
    return others


def _other_kinds(kind: Kind, guess: Guess, labels: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(kind, Classification) and numbers_in_order(labels):
        return ("task.kind=regression",)
    if kind.name == "seq2seq" and language_pair((*guess.text, *guess.label)):
        return (assignment("task.kind", {"name": kind.name, "metric": "bleu"}),)
    return ()


def _notes(spec: TaskSpec, columns: Columns, names: Sequence[str]) -> tuple[str, ...]:
    """What was inferred, what it may be instead, and which columns are not read."""
    found = {
        "text": " + ".join(columns.text),
        "label": " + ".join(columns.label),
        "kind": columns.kind.name,
    }
    inferred = [
        f"{name}={found[name]}{f' (or {joined})' if (joined := ' or '.join(others)) else ''}"
        for name, others in columns.alternatives.items()
    ]
    if not inferred:
        return ()
    unread = _unread(names, [*columns.text, *columns.label, *([spec.group] if spec.group else [])])
    rest = f"; not read: {', '.join(unread)}" if unread else ""
    return (f"inferred from {spec.title}: {', '.join(inferred)}{rest}",)


def _unread(names: Sequence[str], read: Sequence[str]) -> list[str]:
    """The columns that are not read; of fields inside of others, the outer ones.

    >>> _unread(["id", "answers", "answers.text", "by", "by.name"], ["answers", "by.name"])
    ['id']
    """
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    parts = [name for name in outer if any(inner.startswith(f"{name}.") for inner in read)]
    return [name for name in outer if name not in read and name not in parts]


def _holds_fields(name: str, names: Sequence[str]) -> bool:
    """Whether a column has fields of its own, which are columns, and is not SQuAD's answers."""
    is_answer = f"{name}.answer_start" in names
    return not is_answer and any(other.startswith(f"{name}.") for other in names)


def _notes_on_files(spec: TaskSpec) -> list[str]:
    """What was guessed about the training files; reading them reports what is wrong with them."""
    notes: list[str] = []
    for path in spec.sources:
        try:
            notes += notes_on(path, reading=spec.reading)
        except IwloraError as error:
            if is_of_system(error):
                raise
    return notes


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
            f"columns of 0 and 1 are for task.kind={'image-' * kind.reads_images}multi-label"
        )


def _first_rows(path: str, columns: Sequence[str], reading: Reading) -> list[Sequence[Any]]:
    """The cells of the first rows; none of a file that is missing or damaged.

    Reading the whole file reports what is wrong with it, with the problems of the other files. One
    that cannot be read now could be read then, and its columns would be of another kind.
    """
    try:
        records = read_records(path, columns, [], reading=reading)
        return [values for _, values in islice(records, SAMPLE_ROWS)]
    except IwloraError as error:
        if is_of_system(error):
            raise
        return []
