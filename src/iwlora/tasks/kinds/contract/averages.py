"""What a kind of task says on means of several models' outputs, which pools of runs predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel
from typing_extensions import Self

from iwlora.tasks.metrics.logits import Average
from iwlora.tasks.schema import TaskSchema


class AveragedOutputs(BaseModel):
    """The part of the contract for kinds whose outputs have a mean.

    A kind without one says why in ``not_averaged``, and defines none of the methods.
    """

    not_averaged: ClassVar[str] = "it writes texts, and texts have no mean"
    """Why the outputs of several models cannot be averaged; empty where they can."""

    averages: ClassVar[tuple[Average, ...]] = ()
    """What of them can be averaged, the default first; none for numbers."""

    def shared_scale(self) -> Self:
        """The kind of outputs that several models share: numbers are in units of the targets."""
        return self

    def on_shared_scale(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a model of this kind as :meth:`shared_scale` has them."""
        return dict(outputs)

    def average(
        self, outputs: Sequence[Mapping[str, Any]], weights: Any, average: Average
    ) -> dict[str, Any]:
        """The mean of several models' outputs, as one model would give it.

        Args:
            outputs: Of each model for the same rows, on the shared scale.
            weights: (models, rows), of which each column sums to 1.
            average: What is averaged; without effect where :attr:`averages` is empty.
        """
        raise NotImplementedError

    def stored_outputs(
        self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]
    ) -> dict[str, Any] | None:
        """The outputs, on the shared scale, in a run's stored file of predictions.

        None where the file does not have them.
        """
        return None
