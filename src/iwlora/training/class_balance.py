"""Rare classes: weights of the classes in the training loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from iwlora.errors import IwloraError, unknown
from iwlora.tasks import Task
from iwlora.training.train_settings import TrainSettings


def with_class_weights(task: Task, settings: TrainSettings) -> Task:
    """The task with the class weights of the recipe in its training loss, and a note about them.

    Raises:
        IwloraError: the rows of the task do not have exactly one class each, or the recipe names
            a class that the task does not have.
    """
    asked = settings.class_weights
    if not task.kind.one_class and (asked != "none" or settings.sampler == "balanced"):
        raise IwloraError(
            f"train.class_weights={asked} and train.sampler={settings.sampler} were given, and "
            f"the kind {task.kind.name} does not have one class for each row; take none and shuffle"
        )
    if asked == "none":
        return task
    weights = class_weights(asked, task.labels, task.splits["train"]["label"][:])
    named = ", ".join(f"{name} {w:.3g}" for name, w in zip(task.labels, weights, strict=True))
    note = f"the training loss is weighted by class ({named}); the reported losses are not"
    kind = task.kind.with_class_weights(weights)
    return replace(task, kind=kind, notes=(*task.notes, note))


def class_weights(
    asked: str | Mapping[str, float], labels: Sequence[str], rows: Sequence[int]
) -> tuple[float, ...]:
    """The weight of each class.

    ``balanced`` is n / (C n_c), for n rows, C classes and n_c rows of the class: each class has
    the same sum of weights, and the mean over rows is 1. Classes that a mapping leaves out have 1.

    Args:
        asked: ``balanced``, or {class: weight}.
        labels: the classes.
        rows: the class id of each training row.

    Raises:
        IwloraError: a class is not one of the task.

    Example:
        >>> class_weights("balanced", ["ham", "spam"], [0, 0, 0, 1])
        (0.6666666666666666, 2.0)
    """
    if isinstance(asked, Mapping):
        for name in asked:
            if name not in labels:
                raise IwloraError(f"train.class_weights: {unknown('class', name, labels)}")
        return tuple(asked.get(name, 1.0) for name in labels)
    counts = Counter(rows)
    return tuple(
        len(rows) / (len(counts) * counts[k]) if counts[k] else 1.0 for k in range(len(labels))
    )
