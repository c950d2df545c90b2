"""A number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.tasks.kinds.base import Answer, Outputs, finite, plain_text
from iwlora.tasks.kinds.classification import SequenceKind

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

    from iwlora.tasks.task import Task


class Regression(SequenceKind):
    """Squared error of one logit."""

    name: ClassVar[str] = "regression"
    summary: ClassVar[str] = "a number for a text or a pair"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Correlation of values and of ranks."""
        return ("pearson", "spearman")

    def label(self, value: Any) -> float:
        """A finite number."""
        text = plain_text(value)
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"holds {text!r}, not a number") from None
        if not math.isfinite(number):
            raise ValueError(f"holds {text}, not a finite number")
        return number

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Text, number, number."""
        import pyarrow

        return pyarrow.string(), pyarrow.float64(), pyarrow.float64()

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """One logit."""
        config.num_labels = 1
        config.problem_type = "regression"

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """(logit − target)², summed over rows."""
        found: Tensor = outputs.logits.float().squeeze(-1)
        return (found - labels.float()).square().sum()

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """The logit as it is."""
        return [{"prediction": float(value)} for value in outputs["logits"][:, 0]]

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """The correlations, 0 where either side is constant; ``loss`` is the mean squared error."""
        import numpy as np

        from iwlora.tasks.metrics.classification import pearson, spearman

        found, truth = finite(outputs["logits"])[:, 0], np.array(rows["label"][:])
        scores = {"pearson": pearson(truth, found), "spearman": spearman(truth, found)}
        loss = float(np.square(found - truth).mean())
        return {name: scores[name] for name in task.metrics} | {"loss": loss}
