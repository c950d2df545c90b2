"""Regression: a number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.contract import Evaluation, Prediction, Tensor
from iwlora.tasks.kinds.heads import SequenceHead
from iwlora.tasks.metrics.logits import finite_logits
from iwlora.tasks.metrics.regression import METRICS


class Regression(SequenceHead):
    """Squared error of one logit."""

    name: ClassVar[str] = "regression"
    summary: ClassVar[str] = "a number for a text or a pair of texts"
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, float, float)

    default_metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")
    """Pearson's and Spearman's correlation."""

    def parse_label(self, value: Any) -> float:
        """A finite number."""
        text = parse_text(value)
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"holds {text!r}, not a number") from None
        if not math.isfinite(number):
            raise ValueError(f"holds {text}, not a finite number")
        return number

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """One logit."""
        config.num_labels = 1
        config.problem_type = "regression"

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """(logit − target)², summed over rows."""
        logits: Tensor = outputs.logits.float().squeeze(-1)
        return (logits - labels.float()).square().sum()

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The logit, unchanged."""
        return [{"prediction": float(value)} for value in evaluation.outputs["logits"][:, 0]]

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The correlations, 0 where either side is constant; ``loss`` is the mean squared error."""
        predicted = finite_logits(evaluation.outputs["logits"])[:, 0]
        targets = np.array(evaluation.labels)
        scores = {name: METRICS[name](targets, predicted) for name in evaluation.schema.metrics}
        return scores | {"loss": float(np.square(predicted - targets).mean())}
