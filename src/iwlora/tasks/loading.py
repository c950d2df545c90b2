"""Loading the task that a recipe names, with its limits and its held-out rows; once, if asked."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from iwlora.errors import BadRowsError, IwloraError
from iwlora.inputs.images import ENDINGS
from iwlora.inputs.places import open_file
from iwlora.inputs.tables.records import files_of_rows
from iwlora.tasks.columns.infer import infer_columns
from iwlora.tasks.held_out.remarks import absent_classes, equal_numbers, shared_rows
from iwlora.tasks.held_out.stratified_groups import grouped_split
from iwlora.tasks.held_out.study_rows import with_study_rows
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.contract import Dataset, Kind
from iwlora.tasks.registry import CORPORA
from iwlora.tasks.spec import TaskSpec
from iwlora.tasks.splits import (
    SOURCE,
    first_of_each_class,
    first_shuffled,
    has_class_ids,
    mixture,
    stratified_split,
    with_flipped_labels,
)
from iwlora.tasks.task import STUDY, Task
from iwlora.tasks.user_files import load_user_files

# The same rows are scored for every seed, so that scores differ between seeds by training alone.
VALIDATION_SEED = 0
MOST_TASKS, MOST_BYTES = 4, 2**30
"""The most tasks that are kept at a time, and the most bytes of the rows of each."""
_WITHOUT_THREADS = (".csv", ".tsv", ".txt", ".json", ".jsonl", *ENDINGS)
# A process that forks runs reads them. Arrow reads other tables in threads, which no fork survives.

Content = tuple[str, ...]
"""What a task is asked for, and each file with the digest of its content."""

_kept: ContextVar[dict[Content, Task] | None] = ContextVar("kept tasks", default=None)


def load(spec: TaskSpec, seed: int) -> Task:
    """Load the task that ``spec`` names.

    Args:
        spec: The ``task:`` part of a recipe.
        seed: Seeds the shuffle of the training rows before ``max_train`` limits them.

    Raises:
        BadRowsError: Rows cannot be used, and ``task.on_bad`` is not skip.
        IwloraError: Data are missing or malformed, or ``task.on_bad`` is report.

    Example:
        >>> task = load(TaskSpec(name="builtin/entailment", max_train=100), seed=0)
        >>> task.text, len(task.splits["train"]), task.reported
        (('premise', 'hypothesis'), 100, ('test',))
    """
    task = _read_once(spec)
    notes = task.notes
    splits = dict(task.splits)
    if spec.weights:
        train = splits["train"]
        splits["train"] = mixture(train, train[SOURCE][:], spec.weights, spec.max_train, seed)
    for name, split in splits.items():
        if name == "train":
            splits[name] = _first_rows(split, spec, seed)
        elif name == "test":
            splits[name] = first_shuffled(split, spec.max_test, VALIDATION_SEED)
        elif name.startswith("validation") or name == "selection":
            splits[name] = first_shuffled(split, spec.max_validation, VALIDATION_SEED)
    if spec.mix:
        notes = (*notes, _rows_of_sources(spec, splits["train"][SOURCE][:]))
        splits = {
            name: split.remove_columns([SOURCE]) if SOURCE in split.column_names else split
            for name, split in splits.items()
        }
    if spec.flip_labels is not None:
        splits["train"] = _with_flipped_labels(task, spec, splits["train"], seed)
        rows = len(splits["train"])
        flipped = round(spec.flip_labels * rows)
        share = f"task.flip_labels={spec.flip_labels:g}"
        notes = (*notes, f"train: {flipped:,} of {rows:,} labels are another class ({share})")
    limited = replace(task, splits=splits)
    notes = (*notes, *absent_classes(limited), *equal_numbers(limited))
    kind = task.kind.fitted(splits["train"].select_columns("label")["label"][:])
    return replace(limited, kind=kind, notes=notes)


def _first_rows(split: Dataset, spec: TaskSpec, seed: int) -> Dataset:
    """At most ``max_train`` training rows."""
    if spec.draw == "shuffle":
        return first_shuffled(split, spec.max_train, seed)
    if not has_class_ids(split):
        raise IwloraError(
            f"task.draw=balanced was given, and the rows of {spec.title} do not have one class "
            "each; take task.draw=shuffle"
        )
    return first_of_each_class(split, int(spec.max_train or 0), seed)


@contextmanager
def reading_once() -> Iterator[None]:
    """Inside the block, text files and images are read again only if their content changes.

    A block in another one, or in a fork of its process, finds what that has read.
    """
    if _kept.get() is not None:
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def read_in_advance(spec: TaskSpec) -> None:
    """Read the rows that :func:`load` will need, if it finds them kept then.

    Raises as :func:`load`.
    """
    if _kept.get() is not None and _files(spec) is not None:
        _read_once(spec)


def _read_once(spec: TaskSpec) -> Task:
    """All rows of the task, from its files or as they were read from the same content of them."""
    kept = _kept.get()
    if kept is None or (files := _files(spec)) is None:
        return _every_row(spec)
    key = (spec.model_dump_json(), *(f"{file} {_digest(file)}" for file in files))
    if key not in kept:
        task = _every_row(spec)
        if sum(split.data.nbytes for split in task.splits.values()) > MOST_BYTES:
            return task
        for oldest in [*kept][: len(kept) - MOST_TASKS + 1]:
            del kept[oldest]
        kept[key] = task
    return kept[key]


def _files(spec: TaskSpec) -> list[Path] | None:
    """All files that a task is read from, but for images that a table names, which are compared
    when they are opened; None where they are not known, or Arrow reads them."""
    if spec.train is None:
        files = CORPORA[str(spec.name)].text_files(spec.data_dir)
    else:
        given = (*spec.sources, spec.validation, spec.test)
        files = [file for path in given if path is not None for file in files_of_rows(path)]
    if files is None or not all(file.is_file() for file in files):
        return None
    return files if {file.suffix.lower() for file in files} <= {*_WITHOUT_THREADS} else None


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open_file(file) as stream:
        while chunk := stream.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def _every_row(spec: TaskSpec) -> Task:
    """The task with all rows, before a draw is taken of them: the same for each seed."""
    if spec.train:
        task = load_user_files(spec)
    else:
        name = str(spec.name)
        corpus = CORPORA[name]
        if spec.grammar_seed is not None:
            corpus = replace(corpus, grammar_seed=spec.grammar_seed)
        if spec.grammar_depth is not None:
            corpus = replace(corpus, grammar_depth=spec.grammar_depth)
        task = _with_kind(corpus.load(name, spec.data_dir), spec)
    held_out = ["validation"] if spec.train and not spec.validation else []
    if task.bad_rows and spec.on_bad != "skip":
        raise BadRowsError(task.bad_rows)
    if spec.on_bad == "report":
        raise IwloraError(
            "task.on_bad=report lists rows that cannot be used, and there are none; take "
            "task.on_bad=refuse to train"
        )
    if spec.max_test is not None and "test" not in task.splits:
        raise IwloraError(
            f"task.max_test={spec.max_test}: {spec.title} has no test rows with labels; remove it, "
            "or take task.max_validation"
        )
    if spec.score_rows is not None:
        draw_rows = spec.draw_rows or spec.max_train
        task = with_study_rows(task, spec.score_rows, draw_rows, spec.group)
        held_out.append(STUDY)
    if spec.holdout is not None:
        task = _with_holdout(task, spec)
        held_out = ["validation"]
    if spec.selection is not None:
        task = _with_selection(task, spec)
        held_out.append("selection")
    return replace(task, notes=(*task.notes, *shared_rows(task, held_out)))


def _rows_of_sources(spec: TaskSpec, sources: Sequence[int]) -> str:
    """A note on how many of the rows that are trained on each file gives."""
    rows = Counter(sources)
    parts = [f"{rows[number]} rows of {path}" for number, path in enumerate(spec.sources)]
    weights = ", ".join(f"{weight:g}" for weight in spec.weights)
    drawn = f", drawn with the weights {weights}" if weights else ""
    return f"train: {' and '.join(parts)}{drawn}"


def find_kind(spec: TaskSpec) -> Kind:
    """The kind of a task, from its name, or from the recipe and the first rows of its files.

    Raises:
        IwloraError: The files cannot be read, or their columns are not obvious.

    Example:
        >>> find_kind(TaskSpec(name="glue/stsb")).name
        'regression'
    """
    return infer_columns(spec).kind if spec.train else spec.build_kind(CORPORA[str(spec.name)].kind)


def _with_flipped_labels(task: Task, spec: TaskSpec, train: Dataset, seed: int) -> Dataset:
    if not isinstance(task.kind, Classification) or len(task.labels) < 2:
        raise IwloraError(
            f"task.flip_labels={spec.flip_labels} gives training rows another class, and "
            f"{spec.title} is of kind {task.kind.name}, not classification; remove it"
        )
    return with_flipped_labels(train, float(spec.flip_labels or 0), len(task.labels), seed)


def _with_kind(task: Task, spec: TaskSpec) -> Task:
    """The task with the options of its kind that the recipe sets."""
    kind = spec.build_kind(task.kind)
    metrics = task.metrics if kind.metrics == task.kind.metrics else kind.metrics
    return replace(task, kind=kind, metrics=metrics)


def _with_holdout(task: Task, spec: TaskSpec) -> Task:
    """The task that is scored on a part of its training rows, and trained on the others.

    The fraction counts from the rows that training would use, at most ``max_train``.
    """
    rows, fraction = task.splits["train"], float(spec.holdout or 0)
    count = round(fraction * min(spec.max_train or len(rows), len(rows)))
    if spec.split == "grouped":
        train, held_out = _grouped_split(task, spec, count / len(rows))
    else:
        order = list(range(len(rows)))
        random.Random(VALIDATION_SEED).shuffle(order)
        train, held_out = rows.select(sorted(order[count:])), rows.select(sorted(order[:count]))
    if not 0 < count < len(rows) or not len(train) or not len(held_out):
        raise IwloraError(
            f"task.holdout={fraction} of {len(rows)} training rows leaves nothing to "
            f"{'train on' if count else 'score'}"
        )
    return replace(task, splits={"train": train, "validation": held_out})


def _with_selection(task: Task, spec: TaskSpec) -> Task:
    """The task with a part of its training rows in a split ``selection``."""
    rows, fraction = task.splits["train"], float(spec.selection or 0)
    if spec.split == "grouped":
        train, selection = _grouped_split(task, spec, fraction)
    else:
        train, selection = stratified_split(rows, fraction, VALIDATION_SEED)
    if not len(train) or not len(selection):
        raise IwloraError(
            f"task.selection={fraction} of {len(rows)} training rows leaves nothing to "
            f"{'select on' if len(train) else 'train on'}"
        )
    return replace(task, splits={**task.splits, "train": train, "selection": selection})


def _grouped_split(task: Task, spec: TaskSpec, fraction: float) -> tuple[Dataset, Dataset]:
    rows, seed = task.splits["train"], VALIDATION_SEED
    return grouped_split(rows, task.text, task.kind, fraction, seed, spec.group)
