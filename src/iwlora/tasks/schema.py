"""The schema of a task: its text columns, classes and metrics, without any data."""

from __future__ import annotations

from dataclasses import dataclass

from iwlora.errors import short_repr


@dataclass(frozen=True)
class TaskSchema:
    """The columns, classes and metrics of a task.

    Args:
        name: The name of the task, or the path of its training file.
        text: The text columns, one or two.
        labels: The class names; ``labels[i]`` is the name of class ``i``. Empty where the task has
            no classes.
        metrics: The metrics to compute. The first one is the primary metric.
        positive: The class whose F1 is computed.

    Example:
        >>> TaskSchema("demo", ("sentence",), ("negative", "positive"), ("accuracy",)).positive
        1
    """

    name: str
    text: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    positive: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.text) <= 2 or len({*self.text}) < len(self.text):
            given = short_repr(list(self.text))
            raise ValueError(f"text columns {given}: one or two different ones are accepted")
