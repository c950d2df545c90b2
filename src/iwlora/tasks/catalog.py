"""The tasks that have a name, as ``iwlora tasks`` lists them."""

from __future__ import annotations

from typing import NamedTuple

from iwlora.tasks import glue
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification

ENTAILMENT = "builtin/entailment"


class Row(NamedTuple):
    """One line of ``iwlora tasks``; the first of ``metrics`` is the primary one."""

    name: str
    summary: str
    metrics: tuple[str, ...]
    splits: tuple[str, ...]


def names() -> tuple[str, ...]:
    """The names that ``task.name`` accepts.

    >>> names()
    ('builtin/entailment', 'glue/cola', 'glue/mnli', 'glue/mrpc', 'glue/rte', 'glue/sst2')
    """
    return (ENTAILMENT, *sorted(glue.TASKS))


def kind_of_name(name: str) -> Kind:
    """What a named task learns."""
    return Classification()


def describe() -> tuple[Row, ...]:
    """One row for each named task, and a last one for the user's own files.

    >>> describe()[4]._asdict()["metrics"]
    ('accuracy', 'f1')
    """
    named = {
        name: Row(name, task.summary, task.metrics, tuple(task.files))
        for name, task in glue.TASKS.items()
    }
    named[ENTAILMENT] = Row(
        ENTAILMENT,
        "does the first sentence entail the second? generated from a grammar, needs no download",
        ("accuracy",),
        ("train", "validation", "test"),
    )
    files = Row(
        "(your files)",
        "CSV, TSV, JSON Lines or Parquet: task.train=FILE task.text=COLUMN(S) task.label=COLUMN",
        ("accuracy", "macro_f1"),
        ("train", "validation", "test"),
    )
    return (*(named[name] for name in names()), files)
