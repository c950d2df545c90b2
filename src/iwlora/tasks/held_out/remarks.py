"""What a reader of scores must know about the rows that they were computed on."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.tasks.description import count_copies
from iwlora.tasks.task import Task

_LISTED_CLASSES = 10


def absent_classes(task: Task) -> tuple[str, ...]:
    """A note for each split that has no row of some classes.

    Example:
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> rows = dataset_from_rows(["text"], [("a", 0), ("b", 1)])
        >>> splits = {"train": rows, "validation": rows.select([1])}
        >>> absent_classes(Task("t", ("text",), ("x", "y"), ("accuracy",), splits=splits))[0]
        "validation has no row of the class 'x', so its scores do not say how well it is predicted"
    """
    notes = []
    for name, split in task.splits.items() if task.kind.has_classes else ():
        labels = split.select_columns("label")["label"][:]
        present = {k for row in labels for k in ((row,) if isinstance(row, int) else row)}
        absent = [label for k, label in enumerate(task.labels) if k not in present]
        if not absent:
            continue
        plural, they_are = ("", "it is") if len(absent) == 1 else ("es", "they are")
        note = f"{name} has no row of the class{plural} {_listed(absent)}, so "
        if name == "train":
            note += f"{they_are} not learned"
        else:
            note += f"its scores do not say how well {they_are} predicted"
            if "macro_f1" in task.metrics:
                note += f"; {task.kind.macro_average}"
        notes.append(note)
    return tuple(notes)


def equal_numbers(task: Task) -> tuple[str, ...]:
    """A note for each split of a regression in which all rows have the same number.

    Example:
        >>> from iwlora.tasks.kinds.regression import Regression
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> rows = dataset_from_rows(["text"], [("a", 3.0), ("b", 3.0)], Regression())
        >>> equal_numbers(Task("t", ("text",), (), ("pearson",), splits={"train": rows}))
        ('train: the number of every row is 3, so nothing can be learned',)
    """
    notes = []
    for name, split in task.splits.items():
        labels = split.select_columns("label")["label"][:]
        if labels and isinstance(labels[0], float) and min(labels) == max(labels):
            effect = (
                "nothing can be learned" if name == "train" else "no correlation can be computed"
            )
            notes.append(f"{name}: the number of every row is {labels[0]:g}, so {effect}")
    return tuple(notes)


def shared_rows(task: Task, held_out: Sequence[str] = ()) -> tuple[str, ...]:
    """Notes on scored rows that have the texts of a training row.

    Args:
        task: The task with its splits.
        held_out: The splits that were held out of the training rows. Of pairs in them it is said
            how many share one of their two texts with a training row.

    Example:
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> rows = dataset_from_rows(["text"], [("a", 0), ("b", 1)])
        >>> splits = {"train": rows, "validation": rows.select([1])}
        >>> shared_rows(Task("t", ("text",), ("x", "y"), ("accuracy",), splits=splits))[0]
        'validation: 1 of 1 rows have the texts of a training row, 0 of them with another label'
    """
    return (*_copies(task), *_shared_texts(task, held_out))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED_CLASSES
    listed = ", ".join(map(repr, names[:_LISTED_CLASSES]))
    return listed + (f" and {more} more" if more > 0 else "")


def _copies(task: Task) -> list[str]:
    return [
        f"{name}: {copies} of {len(task.splits[name]):,} rows have the {task.kind.content} of a "
        "training row, "
        f"{relabeled} of them with another label"
        for name, (copies, relabeled) in count_copies(task).items()
        if copies
    ]


def _shared_texts(task: Task, held_out: Sequence[str]) -> list[str]:
    notes = []
    for column in task.text if len(task.text) > 1 and held_out else ():
        trained = set(map(str, task.splits["train"][column]))
        for name in held_out:
            texts = list(map(str, task.splits[name][column]))
            shared = sum(text in trained for text in texts)
            if shared:
                notes.append(
                    f"{name}: {shared} of {len(texts):,} rows have the {column} of a training row; "
                    f"task.group={column} keeps such rows together"
                )
    return notes
