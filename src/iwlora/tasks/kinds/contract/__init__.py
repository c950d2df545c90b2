"""The contract of a kind of task, which ``KINDS`` lists; a file for each subject of it."""

from __future__ import annotations

from iwlora.tasks.kinds.contract.averages import AveragedOutputs
from iwlora.tasks.kinds.contract.floors import Floors
from iwlora.tasks.kinds.contract.kind import Kind
from iwlora.tasks.kinds.contract.rows import (
    DRAW,
    EVALUATION_ROWS,
    IMAGE,
    OTHER_REFERENCES,
    STEP,
    Batch,
    Collator,
    Dataset,
    EncodingInput,
    Evaluation,
    Prediction,
    Processor,
    Tensor,
    model_inputs,
)
from iwlora.tasks.kinds.contract.texts_and_labels import TextsAndLabels

__all__ = [
    "DRAW",
    "EVALUATION_ROWS",
    "IMAGE",
    "OTHER_REFERENCES",
    "STEP",
    "AveragedOutputs",
    "Batch",
    "Collator",
    "Dataset",
    "EncodingInput",
    "Evaluation",
    "Floors",
    "Kind",
    "Prediction",
    "Processor",
    "Tensor",
    "TextsAndLabels",
    "model_inputs",
]
