"""The base classes of kinds: a head on the whole sequence, or a loss of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from iwlora.tasks.collators import IGNORE_INDEX
from iwlora.tasks.floors.bag_of_words import bounded_rows, word_features
from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.kinds.contract import Dataset, EncodingInput, Evaluation, Kind, Prediction, Tensor
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.tokenization import tokenize


class SequenceHead(Kind):
    """What classification, multi-label classification and regression share."""

    auto_class_name: ClassVar[str] = "AutoModelForSequenceClassification"
    has_constant_floor: ClassVar[bool] = True
    has_linear_model: ClassVar[bool] = True

    def encode(self, data: EncodingInput) -> Dataset:
        """Texts as :func:`iwlora.tasks.tokenization.tokenize` returns them, and the labels."""
        encoded = tokenize(data.texts, data.processor, data.max_length)
        if data.labels is None:
            return encoded
        return encoded.add_column("labels", self.targets(data.schema, data.labels[:]))

    def targets(self, schema: TaskSchema, labels: Sequence[Any]) -> Sequence[Any]:
        """The values with which the loss compares the logits."""
        return labels

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """The best constant, and a linear model of the words, from a bounded number of rows."""
        constant = self.constant_floor(schema, train["label"][:], len(scored))
        known = bounded_rows([train[name][:] for name in schema.text])
        used = train.select(known)
        columns = [[rows[name][:] for name in schema.text] for rows in (used, scored)]
        features, scored_features = word_features(*columns)
        labels = used["label"][:]
        predicted = self.linear_predictions(schema, features, labels, scored_features)
        return [constant, Floor("bag of words", [{"prediction": value} for value in predicted])]


def class_predictions(
    predicted: Sequence[Any], labels: Sequence[str], values: Sequence[Any], prefix: str
) -> list[Prediction]:
    """What each row was predicted as, and a column ``PREFIX_CLASS`` of values for each class."""
    names = [f"{prefix}_{label}" for label in labels]
    return [
        {"prediction": prediction, **dict(zip(names, map(float, row), strict=True))}
        for prediction, row in zip(predicted, values, strict=True)
    ]


def stored_logits(labels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    """(rows, classes) logits in the columns ``logit_CLASS`` of stored rows."""
    return np.array([[float(row[f"logit_{label}"]) for label in labels] for row in rows])


class TokenLoss(Kind):
    """What token labels and generation share: cross-entropy of the tokens that have a label.

    Labels are ids, or, where tokens have weights, pairs of an id and its weight. The mean loss of
    a batch is the weighted one, sum(weight * loss) / sum(weight).
    """

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, times its weight, summed over the tokens that have a label."""
        ids, weights = _ids_and_weights(outputs.logits, labels)
        return (_token_losses(outputs.logits, ids) * weights).sum()

    def count(self, labels: Tensor) -> Tensor:
        """The number of tokens that have a label; where they have weights, the sum of these."""
        return (labels != IGNORE_INDEX).sum() if labels.dim() == 2 else labels[..., 1].sum()

    def row_losses(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The ``loss`` of each row, summed over its tokens, and their ``count``."""
        losses = _token_losses(logits, labels)
        return {"loss": losses.sum(-1), "count": (labels != IGNORE_INDEX).sum(-1)}

    def mean_loss(self, evaluation: Evaluation) -> float:
        """The mean loss over all tokens of the outputs that ``row_losses`` gave."""
        outputs = evaluation.outputs
        return float(outputs["loss"].astype(float).sum() / max(outputs["count"].sum(), 1))


def _ids_and_weights(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | float]:
    """(ids, weights) of labels that are ids, (rows, tokens), or pairs, (rows, tokens, 2)."""
    if labels.dim() < logits.dim():
        return labels, 1.0
    return labels[..., 0].long(), labels[..., 1]


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token in float32, (rows, tokens); 0 where the label is ignored."""
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view(labels.shape)
