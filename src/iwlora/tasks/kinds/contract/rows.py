"""Rows of a task as a kind gets them: to encode, and with what a model computed for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from iwlora.tasks.schema import TaskSchema

if TYPE_CHECKING:
    import datasets
    import torch

Dataset: TypeAlias = "datasets.Dataset"
Tensor: TypeAlias = "torch.Tensor"
Batch = Mapping[str, Tensor]
Collator = Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]
Prediction = dict[str, Any]
Processor = Literal["tokenizer", "image processor", "codes"]

OTHER_REFERENCES = "other_references"
IMAGE = "image of the row"
"""The column of kinds that read images with each image; their text column has its digest."""
DRAW = "draw"
"""The field of training rows with (seed, epoch, row), from which their changes are drawn."""
STEP = "step"
"""The same with (seed, epoch, step), from which is drawn what all rows of a step share."""
EVALUATION_ROWS = 64
"""Rows that are scored at a time."""


@dataclass(frozen=True)
class EncodingInput:
    """Rows of a task, and the model that is to read them.

    Args:
        schema: The schema of the task.
        rows: The text columns, and ``label`` where the rows have labels.
        processor: The tokenizer of the model, or its image processor.
        max_length: The longest encoded row, in tokens.
        config: The configuration of the model; kinds with a head on the sequence do not need it.
        training: Whether the rows are trained on; otherwise they are scored.
        notes: Encoding adds to it what a user should know about the encoded rows.
    """

    schema: TaskSchema
    rows: datasets.Dataset
    processor: Any
    max_length: int
    config: Any = None
    training: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[Sequence[Any]]:
        """The text columns."""
        return [self.rows[name] for name in self.schema.text]

    @property
    def labels(self) -> Any:
        """The label of each row, to slice; None for rows without labels."""
        if "label" not in self.rows.column_names:
            return None
        return self.rows.select_columns("label")["label"]  # without it the texts are read too


@dataclass(frozen=True)
class Evaluation:
    """Rows of a task, and what a model computed for them.

    Args:
        schema: The schema of the task.
        rows: The rows as they are in the split.
        encoded: The rows as ``Kind.encode`` returned them.
        outputs: What ``Kind.outputs`` returned for all of them, as NumPy arrays.
        processor: The tokenizer of the model, or its image processor.
    """

    schema: TaskSchema
    rows: datasets.Dataset
    encoded: datasets.Dataset
    outputs: Mapping[str, Any]
    processor: Any

    @property
    def labels(self) -> Any:
        """The encoded label of each row."""
        return self.rows["label"][:]


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    """The part of a batch that is passed to the model.

    >>> sorted(model_inputs({"input_ids": None, "labels": None, "prompt_ids": None}))
    ['input_ids']
    """
    not_passed = ("labels", "prompt_ids", "prompt_mask")
    return {name: value for name, value in batch.items() if name not in not_passed}
