"""What a kind of task knows of simple rules: the floors that a trained model is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.kinds.contract.rows import Dataset
from iwlora.tasks.schema import TaskSchema


class Floors(BaseModel):
    """The part of the contract on floors; a kind without any defines nothing of it."""

    floor_limits: ClassVar[tuple[int, int]] = (20_000, 5_000_000)
    """The most scored rows, and characters in them, on which floors are compared within seconds."""

    has_constant_floor: ClassVar[bool] = False
    """Whether :meth:`constant_floor` knows the best prediction that is the same for all rows."""
    has_linear_model: ClassVar[bool] = False
    """Whether :meth:`linear_predictions` can predict from one vector of features for a row."""

    def constant_floor(self, schema: TaskSchema, labels: Sequence[Any], rows: int) -> Floor:
        """What predicts the same for all ``rows``, known from the training labels."""
        raise NotImplementedError

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """What simple rules that know the training rows predict for rows to score."""
        return []

    def linear_predictions(
        self, schema: TaskSchema, features: Any, labels: Sequence[Any], scored: Any
    ) -> list[Any]:
        """What a linear model predicts, learned from features of training rows.

        Args:
            schema: The schema of the task.
            features: Of the training rows, (rows, features).
            labels: Their encoded labels.
            scored: The features of the rows to predict.
        """
        raise NotImplementedError
