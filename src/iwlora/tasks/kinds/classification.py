"""Classification: one class for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import PrivateAttr

from iwlora.tasks.floors.constant import most_frequent
from iwlora.tasks.floors.floor import Floor, constant_floor
from iwlora.tasks.floors.linear import linear_classes
from iwlora.tasks.kinds.contract import Evaluation, Prediction, Tensor
from iwlora.tasks.kinds.heads import SequenceHead, class_predictions, stored_logits
from iwlora.tasks.metrics.classification import METRICS, label_scores, score
from iwlora.tasks.metrics.logits import Average, mean_class_logits
from iwlora.tasks.schema import TaskSchema


class Classification(SequenceHead):
    """Cross-entropy over class ids."""

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "one class for a text or a pair of texts"
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, str, int)
    one_class: ClassVar[bool] = True
    min_classes: ClassVar[int] = 2

    not_averaged: ClassVar[str] = ""
    averages: ClassVar[tuple[Average, ...]] = ("probabilities", "logits")
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    """Accuracy, and the mean over classes of F1."""

    _class_weights: tuple[float, ...] = PrivateAttr(())

    def with_class_weights(self, weights: Sequence[float]) -> Classification:
        """A copy whose mean loss of a batch is sum(weight * loss) / sum(weight), as in PyTorch."""
        copy = self.model_copy()
        copy._class_weights = tuple(weights)
        return copy

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, times the weight of the class, summed over rows."""
        from torch.nn.functional import cross_entropy

        logits = outputs.logits.float()
        weight = logits.new_tensor(self._class_weights) if self._class_weights else None
        return cross_entropy(logits, labels, weight=weight, reduction="sum")

    def count(self, labels: Tensor) -> Tensor:
        """The number of rows, or the sum of their weights."""
        if not self._class_weights:
            return super().count(labels)
        import torch

        return torch.tensor(self._class_weights, device=labels.device)[labels].sum()

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The class with the largest logit, then a logit or a probability for each class."""
        from scipy.special import softmax

        labels, logits = evaluation.schema.labels, evaluation.outputs["logits"]
        predicted = [labels[index] for index in logits.argmax(axis=1)]
        if probabilities:
            return class_predictions(predicted, labels, softmax(logits, axis=1), "probability")
        return class_predictions(predicted, labels, logits, "logit")

    def average(
        self, outputs: Sequence[Mapping[str, Any]], weights: Any, average: Average
    ) -> dict[str, Any]:
        """Logits of the mean."""
        logits = [of_model["logits"] for of_model in outputs]
        return {"logits": mean_class_logits(logits, weights, average)}

    def stored_outputs(
        self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]
    ) -> dict[str, Any]:
        """The logits."""
        return {"logits": stored_logits(schema.labels, rows)}

    def constant_floor(self, schema: TaskSchema, labels: Sequence[int], rows: int) -> Floor:
        """The most frequent class; where F1 of one class is ranked by, that class."""
        most = most_frequent(labels)
        if schema.metrics[0] == "f1" and most != schema.positive:
            positive = schema.labels[schema.positive]
            return constant_floor("positive class for every row", positive, rows)
        return constant_floor("most frequent class", schema.labels[most], rows)

    def linear_predictions(
        self, schema: TaskSchema, features: Any, labels: Sequence[int], scored: Any
    ) -> list[str]:
        """The class names by logistic regression."""
        return [schema.labels[k] for k in linear_classes(features, labels, scored)]

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[str], predictions: Sequence[str]
    ) -> dict[str, float]:
        """All metrics but the loss."""
        ids = {name: k for k, name in enumerate(schema.labels)}
        labels, predicted = (
            np.array([ids[name] for name in names]) for names in (references, predictions)
        )
        return {name: METRICS[name](labels, predicted, schema.positive) for name in schema.metrics}

    def label_scores(self, evaluation: Evaluation) -> dict[str, dict[str, float]]:
        """The scores of each class that rows have or are predicted as."""
        predicted = evaluation.outputs["logits"].argmax(axis=1)
        return label_scores(evaluation.schema.labels, evaluation.labels, predicted)

    def rescore(self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
        """From the labels and the logits."""
        ids = [schema.labels.index(row["label"]) for row in rows]
        logits = stored_logits(schema.labels, rows)
        return score(schema.metrics, ids, logits, schema.positive)

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """As :func:`iwlora.tasks.metrics.classification.score`."""
        schema, logits = evaluation.schema, evaluation.outputs["logits"]
        return score(schema.metrics, evaluation.labels, logits, schema.positive)
