"""Tasks: what a model is fine-tuned on, from GLUE, a built-in grammar or the user's own files."""

from __future__ import annotations

import random
from dataclasses import replace

from iwlora.errors import IwloraError
from iwlora.tasks.catalog import ENTAILMENT, Row, describe, load_named, names
from iwlora.tasks.spec import TaskSpec
from iwlora.tasks.task import Task, columns, first_shuffled, hold_out

__all__ = ["Row", "Task", "TaskSpec", "describe", "load", "names"]

# The scored rows are the same for every seed: the spread over seeds is the runs', not the rows'.
VALIDATION_SEED = 0


def load(spec: TaskSpec, seed: int) -> Task:
    """The task that ``spec`` names; ``seed`` shuffles the training rows before ``max_train`` cuts.

    Raises ``IwloraError`` for data that are missing or malformed, with file and line.

    >>> task = load(TaskSpec(name="builtin/entailment", max_train=100), seed=0)
    >>> task.text, len(task.splits["train"]), task.reported
    (('premise', 'hypothesis'), 100, ('test',))
    """
    if spec.train:
        from iwlora.tasks import own_files

        task = own_files.load(spec)
    elif spec.name == ENTAILMENT:
        task = _entailment()
    else:
        task = load_named(str(spec.name), spec.data_dir)
    if spec.name and spec.kind:
        kind = spec.kind_of(task.kind)
        chosen = task.metrics if kind.metrics == task.kind.metrics else kind.metrics
        task = replace(task, kind=kind, metrics=chosen)
    if spec.holdout is not None:
        task = _held_out(task, spec.holdout, spec.max_train)
    if spec.selection is not None:
        task = _with_selection(task, spec.selection)
    splits = dict(task.splits)
    for name, split in task.splits.items():
        if name == "train":
            splits[name] = first_shuffled(split, spec.max_train, seed)
        elif name.startswith("validation") or name == "selection":
            splits[name] = first_shuffled(split, spec.max_validation, VALIDATION_SEED)
    return replace(task, splits=splits)


def _held_out(task: Task, part: float, limit: int | None) -> Task:
    """The task that trains on the rest of its training rows and is scored on ``part`` of them.

    ``part`` is of the rows that training would see, so that a small training keeps it small.
    """
    rows = task.splits["train"]
    count = round(part * min(limit or len(rows), len(rows)))
    if not 0 < count < len(rows):
        raise IwloraError(
            f"task.holdout={part} of {len(rows)} training rows leaves nothing to "
            f"{'train on' if count else 'score'}"
        )
    order = list(range(len(rows)))
    random.Random(VALIDATION_SEED).shuffle(order)
    parts = {"train": sorted(order[count:]), "validation": sorted(order[:count])}
    return replace(task, splits={name: rows.select(index) for name, index in parts.items()})


def _with_selection(task: Task, part: float) -> Task:
    """The task with ``part`` of each class of its training rows apart, as ``selection``."""
    rows = task.splits["train"]
    train, selection = hold_out(rows, part, VALIDATION_SEED)
    if not len(train) or not len(selection):
        raise IwloraError(
            f"task.selection={part} of {len(rows)} training rows leaves nothing to "
            f"{'select on' if len(train) else 'train on'}"
        )
    return replace(task, splits={**task.splits, "train": train, "selection": selection})


def _entailment() -> Task:
    from iwlora.tasks.corpora.entailment import LABELS, generate

    text = ("premise", "hypothesis")
    splits = {
        name: columns(
            text, [(*(row[column] for column in text), LABELS.index(row["label"])) for row in rows]
        )
        for name, rows in generate().items()
    }
    return Task(ENTAILMENT, text, LABELS, splits, metrics=("accuracy",))
