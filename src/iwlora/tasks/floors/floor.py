"""A floor of a task: what a simple rule predicts for the scored rows, without fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Floor:
    """What a simple rule predicts.

    Args:
        name: What predicts, such as "most frequent class"; a sentence puts "the" before it.
        predictions: The columns of each scored row's prediction, as ``Kind.predictions`` has them.
        trivial: Whether a run that learned nothing reaches it.
    """

    name: str
    predictions: Sequence[Mapping[str, Any]]
    trivial: bool = False


def constant_floor(name: str, value: Any, rows: int) -> Floor:
    """The floor that predicts the same for every row; it reads no text, so it is trivial.

    >>> constant_floor("most frequent class", "yes", 2).predictions
    [{'prediction': 'yes'}, {'prediction': 'yes'}]
    """
    return Floor(name, [{"prediction": value}] * rows, trivial=True)
