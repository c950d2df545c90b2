"""Regression: a number for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import Self

from iwlora.tasks.floors.floor import Floor, constant_floor
from iwlora.tasks.floors.linear import linear_numbers
from iwlora.tasks.kinds.cells import parse_number
from iwlora.tasks.kinds.contract import Evaluation, Prediction, Tensor
from iwlora.tasks.kinds.heads import SequenceHead
from iwlora.tasks.kinds.target_scale import TargetScale, Transform
from iwlora.tasks.metrics.logits import Average, finite_logits, mean_values
from iwlora.tasks.metrics.regression import METRICS
from iwlora.tasks.schema import TaskSchema


class Regression(SequenceHead):
    """Squared or Huber's error of one logit, which is the target on the scale of the training rows.

    Predictions and scores are in the units of the targets.
    """

    name: ClassVar[str] = "regression"
    summary: ClassVar[str] = "a number for a text or a pair of texts"
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, float, float)
    former_defaults: ClassVar[Mapping[str, Any]] = {"standardize": False}
    fitted_options: ClassVar[tuple[str, ...]] = ("target_scale",)

    not_averaged: ClassVar[str] = ""
    default_metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "rmse", "mae")
    """Pearson's and Spearman's correlation, root mean squared error and mean absolute error."""

    metric: Literal["pearson", "spearman", "rmse", "mae"] = "pearson"
    """The primary metric."""
    standardize: bool = True
    """Learn (target - mean) / standard deviation, with both from the rows that are trained on."""
    transform: Transform | None = None
    """What is learned of heavy-tailed targets: their log, the log of 1 + target, or their rank."""
    loss_function: Literal["mse", "huber"] = "mse"
    """huber: the error counts linearly, not squared, where it is larger than ``huber_delta``."""
    huber_delta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """In standard deviations of what is learned; without ``standardize`` in its units."""
    target_scale: TargetScale | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics, the primary one first."""
        return (self.metric, *(name for name in self.default_metrics if name != self.metric))

    @property
    def scaling(self) -> TargetScale | None:
        """The scale that the targets are learned on; None for the targets as they are."""
        return self.target_scale

    def with_scaling(self, scale: TargetScale) -> Self:
        """The kind with this scale."""
        return self.model_copy(update={"target_scale": scale})

    def fitted(self, labels: Sequence[float]) -> Self:
        """The kind with the scale of the training targets, unless they are learned as they are."""
        if not self.standardize and self.transform is None:
            return self
        return self.with_scaling(TargetScale.fit(labels, self.transform, self.standardize))

    def parse_label(self, value: Any) -> float:
        """A finite number; "1,5" is 1.5, and "80%" is 0.8."""
        return parse_number(value)

    def notation(self, value: Any) -> str:
        """Whether the number has a percent sign."""
        return "%" if isinstance(value, str) and value.strip().endswith("%") else ""

    def strata(self, labels: Sequence[float], most: int) -> Sequence[Sequence[int]]:
        """The tenth of the sorted targets that each row is in; fewer parts where ``most`` is."""
        from scipy.stats import rankdata

        parts = min(10, most)
        ranks = rankdata(labels, method="ordinal") - 1
        return [(int(rank * parts // len(labels)),) for rank in ranks]

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """One logit."""
        config.num_labels = 1
        config.problem_type = "regression"

    def targets(self, schema: TaskSchema, labels: Sequence[float]) -> Sequence[float]:
        """The targets on the scale that they are learned on."""
        return labels if self.target_scale is None else self.target_scale.to_z(labels).tolist()

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """(logit - target)² or Huber's error, summed over rows; the target is on its scale.

        Huber's error of e is e²/2 up to δ, and δ·(|e| - δ/2) beyond.
        """
        from torch.nn.functional import huber_loss

        logits: Tensor = outputs.logits.float().squeeze(-1)
        if self.loss_function == "huber":
            return huber_loss(logits, labels.float(), reduction="sum", delta=self.huber_delta)
        return (logits - labels.float()).square().sum()

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The logit, in the units of the targets."""
        return [{"prediction": float(value)} for value in self._predicted(evaluation)]

    def shared_scale(self) -> Self:
        """The kind without a scale: each model learned on one of its own."""
        return self.model_copy(update={"target_scale": None})

    def on_shared_scale(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers in units of the targets, in the place of logits."""
        logits = np.asarray(outputs["logits"], dtype=np.float64)
        scale = self.target_scale
        return {"logits": logits if scale is None else scale.to_targets(logits)}

    def average(
        self, outputs: Sequence[Mapping[str, Any]], weights: Any, average: Average
    ) -> dict[str, Any]:
        """The mean of the numbers."""
        return {"logits": mean_values([of_model["logits"] for of_model in outputs], weights)}

    def stored_outputs(
        self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]
    ) -> dict[str, Any]:
        """The predicted numbers."""
        return {"logits": np.array([[float(row["prediction"])] for row in rows])}

    def _predicted(self, evaluation: Evaluation) -> Any:
        logits = evaluation.outputs["logits"][:, 0]
        return logits if self.target_scale is None else self.target_scale.to_targets(logits)

    def constant_floor(self, schema: TaskSchema, labels: Sequence[float], rows: int) -> Floor:
        """The mean of the training targets; their median where runs are ranked by ``mae``."""
        if schema.metrics[0] == "mae":
            return constant_floor("median of the training targets", float(np.median(labels)), rows)
        return constant_floor("mean of the training targets", float(np.mean(labels)), rows)

    def linear_predictions(
        self, schema: TaskSchema, features: Any, labels: Sequence[float], scored: Any
    ) -> list[float]:
        """The numbers by ridge regression."""
        return linear_numbers(features, labels, scored)

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[float], predictions: Sequence[float]
    ) -> dict[str, float]:
        """All metrics, and the mean squared error as ``loss``."""
        return _scores(schema, np.array(references), np.array(predictions))

    def stored_pair(self, row: Mapping[str, str]) -> tuple[float, float]:
        """Both are in the units of the targets."""
        return float(row["label"]), float(row["prediction"])

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The metrics in the units of the targets, correlations 0 where either side is constant.

        ``loss`` is the mean squared error, whatever was minimized.
        """
        predicted = finite_logits(self._predicted(evaluation))
        return _scores(evaluation.schema, np.array(evaluation.labels), predicted)


def _scores(schema: TaskSchema, targets: Any, predicted: Any) -> dict[str, float]:
    scores = {name: METRICS[name](targets, predicted) for name in schema.metrics}
    with np.errstate(over="ignore"):
        return scores | {"loss": float(np.square(predicted - targets).mean())}
