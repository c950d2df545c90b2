"""Batches of sources and targets: for encoder-decoders, for decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iwlora.tasks.padding import IGNORED, padding

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PadTargets:
    """Batches for encoder-decoders: the decoder reads the target shifted by one."""

    tokenizer: Any
    model: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of some encoded rows."""
        batch = padding(self.tokenizer, labels=IGNORED)(rows)
        if "labels" in batch:
            shifted = self.model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
            batch["decoder_input_ids"] = shifted
        return batch


@dataclass(frozen=True)
class PadPrompts:
    """Batches for decoders: labels are the next token; prompts are padded on the left."""

    tokenizer: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of some encoded rows."""
        marked = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
        if "labels" in rows[0]:
            marked = [{**row, "labels": [*row["labels"][1:], IGNORED]} for row in marked]
        batch = padding(self.tokenizer, labels=IGNORED, position_ids=0)(marked)
        if "position_ids" in rows[0]:
            del batch["attention_mask"]  # it would hide where rows begin
        if "prompt_ids" in rows[0]:
            # Padded on the left: an answer follows its prompt.
            reversed_rows = [
                {
                    "input_ids": row["prompt_ids"][::-1],
                    "attention_mask": [1] * len(row["prompt_ids"]),
                }
                for row in rows
            ]
            left = padding(self.tokenizer)(reversed_rows)
            batch["prompt_ids"] = left["input_ids"].flip(1)
            batch["prompt_mask"] = left["attention_mask"].flip(1)
        return batch
