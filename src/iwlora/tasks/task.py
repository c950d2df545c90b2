"""One task, ready to encode: its kind, its text columns, its classes, its splits, its metrics."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iwlora.tasks.kinds.base import Kind
from iwlora.tasks.kinds.classification import Classification

if TYPE_CHECKING:
    import datasets
    import pyarrow


@dataclass(frozen=True)
class Task:
    """What is learned and scored; ``labels[i]`` is the name of class ``i`` where there are classes.

    Every split has the ``text`` columns and ``label``, of the types that ``kind`` says. The splits
    are ``train``, ``validation``, and where the task has them ``validation_mismatched``, ``test``
    (with its labels) and ``selection`` (a part of train that chooses the checkpoint). The first of
    ``metrics`` is the primary one; ``positive`` is the class that F1 counts. ``notes`` are
    sentences that whoever runs the task should read.

    >>> split = columns(["sentence"], [("good", 1), ("bad", 0)])
    >>> task = Task("demo", ("sentence",), ("neg", "pos"), {"train": split, "validation": split},
    ...             metrics=("accuracy",))
    >>> task.reported
    ('validation',)
    """

    name: str
    text: tuple[str, ...]
    labels: tuple[str, ...]
    splits: Mapping[str, datasets.Dataset]
    metrics: tuple[str, ...]
    positive: int = 1
    notes: tuple[str, ...] = field(default=())
    kind: Kind = field(default_factory=Classification)

    @property
    def reported(self) -> tuple[str, ...]:
        """The splits that are scored: the labelled test split where there is one, else validation.

        MNLI has two of these, ``validation`` (matched) and ``validation_mismatched``.
        """
        if "test" in self.splits:
            return ("test",)
        return tuple(name for name in self.splits if name.startswith("validation"))

    @property
    def watched(self) -> str | None:
        """The split that is scored while training goes on: never one that is reported."""
        free = (name for name in ("selection", "validation") if name in self.splits)
        return next((name for name in free if name not in self.reported), None)


def columns(
    text: Sequence[str], rows: Sequence[Sequence[Any]], kind: Kind | None = None
) -> datasets.Dataset:
    """The split whose rows are ``(*texts, label)``, held in memory; without ``kind`` classes.

    >>> columns(["premise", "hypothesis"], [("It rains.", "It is wet.", 0)])[0]
    {'premise': 'It rains.', 'hypothesis': 'It is wet.', 'label': 0}
    """
    import pyarrow

    text_type, _, label_type = (kind or Classification()).types()
    types = [*[text_type] * len(text), label_type]
    names = [*text, "label"]
    values: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
    arrays = [
        pyarrow.array(column, type_)
        for column, type_ in zip(values or [[] for _ in names], types, strict=True)
    ]
    return in_memory(pyarrow.table(arrays, names=names))


def in_memory(table: pyarrow.Table) -> datasets.Dataset:
    """A table as a split; ``datasets`` is spared a hash, for which it would copy all of it."""
    import datasets
    from datasets.fingerprint import generate_random_fingerprint

    fingerprint = generate_random_fingerprint()
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint)


def first_shuffled(split: datasets.Dataset, limit: int | None, seed: int) -> datasets.Dataset:
    """The first ``limit`` rows of ``split`` in the order that ``seed`` shuffles it to; None: all.

    A larger limit with the same seed only adds rows.

    >>> split = columns(["sentence"], [(str(i), 0) for i in range(9)])
    >>> few, more = (first_shuffled(split, n, seed=1)["sentence"] for n in (2, 4))
    >>> list(more)[:2] == list(few)
    True
    """
    if limit is None or limit >= len(split):
        return split
    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    return split.select(order[:limit])


def hold_out(
    split: datasets.Dataset, part: float, seed: int = 0
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """(the rows that stay, ``part`` of each class), both in their order; a seeded choice.

    A task without class ids is one class. Of a class with n rows ⌊part · n⌋ are held out.

    >>> rest, held = hold_out(columns(["sentence"], [(str(i), i % 2) for i in range(20)]), 0.1)
    >>> len(rest), sorted(held["label"])
    (18, [0, 1])
    """
    import datasets
    import numpy as np

    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    classes = np.zeros(len(split), dtype=np.int64)
    if split.features["label"] == datasets.Value("int64"):
        classes = np.asarray(split["label"][:])
    quota = {k: int(part * n + 1e-9) for k, n in enumerate(np.bincount(classes).tolist())}
    held = np.zeros(len(split), dtype=bool)
    for index in order:
        if quota[classes[index]] > 0:
            quota[classes[index]] -= 1
            held[index] = True
    return split.select(np.flatnonzero(~held)), split.select(np.flatnonzero(held))
