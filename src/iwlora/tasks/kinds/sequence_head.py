"""The base class of the kinds with one prediction per row: a head on the whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.tasks.kinds.contract import EncodingInput, Kind
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.tokenization import tokenize

if TYPE_CHECKING:
    import datasets
    import numpy.typing as npt


class SequenceHead(Kind):
    """What classification, multi-label classification and regression share."""

    auto_class_name: ClassVar[str] = "AutoModelForSequenceClassification"

    def encode(self, data: EncodingInput) -> datasets.Dataset:
        """Texts as :func:`iwlora.tasks.tokenization.tokenize` returns them, and the labels."""
        encoded = tokenize(data.texts, data.tokenizer, data.max_length)
        if data.labels is None:
            return encoded
        return encoded.add_column("labels", self.targets(data.schema, data.labels[:]))

    def targets(self, schema: TaskSchema, labels: Sequence[Any]) -> Sequence[Any]:
        """The values with which the loss compares the logits."""
        return labels


def class_columns(
    labels: Sequence[str], values: npt.NDArray[Any], probabilities: bool
) -> dict[str, float]:
    """One column ``logit_CLASS`` or ``probability_CLASS`` for each class of a row."""
    prefix = "probability" if probabilities else "logit"
    return {f"{prefix}_{name}": float(v) for name, v in zip(labels, values, strict=True)}
