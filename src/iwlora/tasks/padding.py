"""Batches of encoded rows, padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MULTIPLE = 8
IGNORED = -100


@dataclass(frozen=True)
class Pad:
    """Pads the ``fields`` of rows on the right to the longest row of the batch.

    ``fields`` maps names to padding values. The length is rounded up to a multiple of 8, as far
    as ``longest`` allows. Rows may lack a field, all alike; ``labels`` that are a number, or are
    not among the fields, become a tensor as they are.

    >>> Pad({"input_ids": 0})([{"input_ids": [5, 6], "labels": 1}])["input_ids"]
    tensor([[5, 6, 0, 0, 0, 0, 0, 0]])
    """

    fields: Mapping[str, int]
    longest: float = float("inf")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of some encoded rows."""
        import torch

        batch = {
            name: torch.tensor(self._padded([row[name] for row in rows], value))
            for name, value in self.fields.items()
            if name in rows[0]
        }
        if "labels" in rows[0] and "labels" not in batch:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    def _padded(self, lists: Sequence[Sequence[int]], value: int) -> list[list[int]]:
        width = max(len(items) for items in lists)
        width = max(width, int(min(-(-width // MULTIPLE) * MULTIPLE, self.longest)))
        return [[*items, *[value] * (width - len(items))] for items in lists]


def padding(tokenizer: Any, **more: int) -> Pad:
    """A ``Pad`` of what a tokenizer gives, and of ``more`` fields."""
    fields = {
        "input_ids": tokenizer.pad_token_id,
        "attention_mask": 0,
        "token_type_ids": tokenizer.pad_token_type_id,
        **more,
    }
    return Pad(fields, tokenizer.model_max_length)
