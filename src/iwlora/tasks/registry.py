"""The registry of named tasks, as ``iwlora tasks`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from iwlora.tasks.corpora import (
    entailment,
    glue,
    sentiment,
    squad,
    summarization,
    superglue,
    translation,
)
from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.corpora.images import cifar, core50, digits, shapes, strokes
from iwlora.tasks.kinds import KINDS

CORPORA: Mapping[str, Corpus] = {
    name: corpus
    for module in (
        entailment,
        sentiment,
        shapes,
        strokes,
        digits,
        glue,
        superglue,
        squad,
        summarization,
        translation,
        cifar,
        core50,
    )
    for name, corpus in sorted(module.TASKS.items())
}


class TaskListing(NamedTuple):
    """One line of ``iwlora tasks``; the first of ``metrics`` is the primary one."""

    name: str
    summary: str
    metrics: tuple[str, ...]
    splits: tuple[str, ...]
    kind: str


def names() -> tuple[str, ...]:
    """The names that ``task.name`` accepts.

    >>> names()[:3], len(names())
    (('builtin/entailment', 'builtin/sentiment', 'builtin/shapes'), 28)
    """
    return tuple(CORPORA)


def list_tasks() -> tuple[TaskListing, ...]:
    """One line for each named task, and one for each kind of task in the user's own files.

    >>> next(task.metrics for task in list_tasks() if task.name == "glue/cola")
    ('matthews_correlation',)
    """
    named = [
        TaskListing(name, corpus.summary, corpus.metrics, corpus.splits, corpus.kind.name)
        for name, corpus in CORPORA.items()
    ]
    splits = ("train", "validation", "test")
    own = [
        TaskListing("(your files)", kind.summary, kind().metrics, splits, kind.name)
        for kind in KINDS.values()
    ]
    return (*named, *own)
