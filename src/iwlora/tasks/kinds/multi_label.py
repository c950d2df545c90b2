"""Multi-label classification: any number of classes for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.floors.constant import most_frequent_classes
from iwlora.tasks.floors.floor import Floor, constant_floor
from iwlora.tasks.floors.linear import linear_class_sets
from iwlora.tasks.kinds.cells import parse_list
from iwlora.tasks.kinds.contract import Evaluation, Prediction, Tensor
from iwlora.tasks.kinds.heads import SequenceHead, class_predictions, stored_logits
from iwlora.tasks.kinds.label_separator import SEPARATORS
from iwlora.tasks.metrics.logits import Average, finite_logits, mean_binary_logits
from iwlora.tasks.metrics.multi_label import multi_label_class_scores, multi_label_scores
from iwlora.tasks.schema import TaskSchema

_BOOLEANS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class MultiLabel(SequenceHead):
    """Binary cross-entropy for each class; a class is predicted from a probability of 0.5 on."""

    name: ClassVar[str] = "multi-label"
    summary: ClassVar[str] = "any number of classes for a text or a pair of texts"
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, list[str], list[int])
    several_label_columns: ClassVar[bool] = True
    macro_average: ClassVar[str] = "macro_f1 is the mean over all classes, and such a class adds 0"

    former_defaults: ClassVar[Mapping[str, Any]] = {"separator": ";"}

    floor_limits: ClassVar[tuple[int, int]] = (4000, 5_000_000)
    not_averaged: ClassVar[str] = ""
    averages: ClassVar[tuple[Average, ...]] = ("probabilities", "logits")
    default_metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1", "accuracy")
    """F1 over all decisions, mean over classes of F1, fraction of rows without a mistake."""

    separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between the classes in a cell of text, such as ``;``; None: inferred."""

    def parse_label(self, value: Any) -> list[str]:
        """Class names: a list, text with the separator between, or {column: 0 or 1}."""
        if isinstance(value, Mapping):
            return [name for name, cell in value.items() if _is_true(name, cell)]
        if isinstance(value, str) and not value.strip():
            return []
        return list(dict.fromkeys(parse_list(value, self.separator or SEPARATORS[0])))

    def encode_label(self, label: list[str], ids: Mapping[str, int]) -> list[int]:
        """The class ids, sorted."""
        return sorted(ids[name] for name in label)

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """One logit per class; several classes may hold."""
        super().configure(config, labels)
        config.problem_type = "multi_label_classification"

    def targets(self, schema: TaskSchema, labels: Sequence[Sequence[int]]) -> list[list[float]]:
        """1.0 for the classes of a row, 0.0 for the others."""
        return [[float(k in set(row)) for k in range(len(schema.labels))] for row in labels]

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Binary cross-entropy in nats, summed over rows and classes."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs.logits.float(), labels, reduction="sum")

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The classes with a positive logit, then a logit or a probability for each class."""
        from scipy.special import expit

        labels, logits = evaluation.schema.labels, evaluation.outputs["logits"]
        predicted = [[labels[index] for index in row.nonzero()[0]] for row in logits > 0]
        if probabilities:
            return class_predictions(predicted, labels, expit(logits), "probability")
        return class_predictions(predicted, labels, logits, "logit")

    def average(
        self, outputs: Sequence[Mapping[str, Any]], weights: Any, average: Average
    ) -> dict[str, Any]:
        """Logits of the mean, class by class."""
        logits = [of_model["logits"] for of_model in outputs]
        return {"logits": mean_binary_logits(logits, weights, average)}

    def stored_outputs(
        self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]
    ) -> dict[str, Any]:
        """The logits."""
        return {"logits": stored_logits(schema.labels, rows)}

    def constant_floor(
        self, schema: TaskSchema, labels: Sequence[Sequence[int]], rows: int
    ) -> Floor:
        """The classes that give the largest micro F1 on the training rows."""
        classes = [schema.labels[k] for k in most_frequent_classes(labels)]
        return constant_floor("most frequent classes", classes, rows)

    def linear_predictions(
        self, schema: TaskSchema, features: Any, labels: Sequence[Sequence[int]], scored: Any
    ) -> list[list[str]]:
        """The class names by a logistic regression for each class."""
        rows = linear_class_sets(features, labels, scored, len(schema.labels))
        return [[schema.labels[k] for k in row] for row in rows]

    def prediction_scores(
        self,
        schema: TaskSchema,
        references: Sequence[Sequence[str]],
        predictions: Sequence[Sequence[str]],
    ) -> dict[str, float]:
        """All metrics but the loss."""
        targets, predicted = (_indicators(schema, rows) for rows in (references, predictions))
        return _label_set_scores(schema, targets, predicted)

    def label_scores(self, evaluation: Evaluation) -> dict[str, dict[str, float]]:
        """The scores of each class."""
        targets = np.array(self.targets(evaluation.schema, evaluation.labels))
        predicted = evaluation.outputs["logits"] > 0
        return multi_label_class_scores(evaluation.schema.labels, targets, predicted)

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The metrics, and the mean binary cross-entropy as ``loss``."""
        targets = np.array(self.targets(evaluation.schema, evaluation.labels))
        return _scores(evaluation.schema, targets, finite_logits(evaluation.outputs["logits"]))

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, Any]:
        """Both are lists of class names."""
        return from_json(row["label"]), from_json(row["prediction"])

    def rescore(self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
        """From the labels and the logits."""
        targets = _indicators(schema, [from_json(row["label"]) for row in rows])
        logits = stored_logits(schema.labels, rows)
        return _scores(schema, targets, finite_logits(logits))


def _indicators(schema: TaskSchema, rows: Sequence[Sequence[str]]) -> Any:
    """Whether each row has each class, (rows, classes)."""
    return np.array([[name in row for name in schema.labels] for row in map(set, rows)])


def _scores(schema: TaskSchema, targets: Any, logits: Any) -> dict[str, float]:
    loss = float((np.logaddexp(0.0, logits) - targets * logits).mean())
    return _label_set_scores(schema, targets, logits > 0) | {"loss": loss}


def _label_set_scores(schema: TaskSchema, targets: Any, predicted: Any) -> dict[str, float]:
    scores = multi_label_scores(targets, predicted)
    return {name: scores[name] for name in schema.metrics}


def _is_true(name: str, cell: Any) -> bool:
    text = str(cell).strip().lower()
    if text not in _BOOLEANS:
        raise ValueError(f"of class {name!r} holds {cell!r}; accepted: 0 and 1")
    return _BOOLEANS[text]
