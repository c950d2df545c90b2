"""The tasks that have a name, as ``iwlora tasks`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from iwlora.tasks.corpora import glue, squad, superglue, text_generation
from iwlora.tasks.kinds import KINDS, Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.task import Task

ENTAILMENT = "builtin/entailment"
# Each has TASKS, whose rows have summary, metrics, files (by split) and kind, and load.
SOURCES = (glue, superglue, squad, text_generation)


class Row(NamedTuple):
    """One line of ``iwlora tasks``; the first of ``metrics`` is the primary one."""

    name: str
    summary: str
    metrics: tuple[str, ...]
    splits: tuple[str, ...]
    kind: str


def names() -> tuple[str, ...]:
    """The names that ``task.name`` accepts.

    >>> names()[:3], len(names())
    (('builtin/entailment', 'glue/cola', 'glue/mnli'), 20)
    """
    return (ENTAILMENT, *(name for source in SOURCES for name in sorted(source.TASKS)))


def load_named(name: str, data_dir: str | None) -> Task:
    """A task from files in their official layout, or from the hub."""
    source = next(source for source in SOURCES if name in source.TASKS)
    task: Task = source.load(name, data_dir)
    return task


def kind_of_name(name: str) -> Kind:
    """What a named task learns, with its own options.

    >>> kind_of_name("xsum").beams
    6
    """
    kinds: Mapping[str, Kind] = {
        name: task.kind for source in SOURCES for name, task in source.TASKS.items()
    }
    return kinds.get(name, Classification())


def describe() -> tuple[Row, ...]:
    """One row for each named task, and one for each kind of task in the user's own files.

    >>> describe()[1]._asdict()["metrics"]
    ('matthews_correlation',)
    """
    rows = [
        Row(
            ENTAILMENT,
            "does the first sentence entail the second? generated from a grammar, no download",
            ("accuracy",),
            ("train", "validation", "test"),
            Classification.name,
        )
    ]
    for source in SOURCES:
        for name, task in sorted(source.TASKS.items()):
            rows.append(Row(name, task.summary, task.metrics, tuple(task.files), task.kind.name))
    own = ("train", "validation", "test")
    rows += [Row("(your files)", k.summary, k().metrics, own, k.name) for k in KINDS.values()]
    return tuple(rows)
