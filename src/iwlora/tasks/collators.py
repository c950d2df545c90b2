"""Collators: they pad encoded rows and make batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# The label of tokens that are not learned: the default ``ignore_index`` of torch's cross-entropy.
IGNORE_INDEX = -100


def pad_multiple() -> int:
    """8 with a GPU, whose matrix units need it; on a CPU, each token of padding costs time."""
    import torch

    return 8 if torch.cuda.is_available() else 1


@dataclass(frozen=True)
class PaddingCollator:
    """Pads rows on the right, to the longest row of the batch.

    The length is rounded up to a multiple where ``max_length`` allows. ``labels`` that are not
    among the padded fields become a tensor unchanged. A field that the rows lack is skipped.

    Args:
        pad_values: The fields to pad, and the value that pads each of them.
        max_length: The longest padded row, in tokens.
        multiple: What the length is rounded up to a multiple of, in tokens: 8 with a GPU, else 1.

    Example:
        >>> pad = PaddingCollator({"input_ids": 0}, multiple=4)
        >>> pad([{"input_ids": [5, 6], "labels": 1}])["input_ids"]
        tensor([[5, 6, 0, 0]])
    """

    pad_values: Mapping[str, float]
    max_length: float = float("inf")
    multiple: int = field(default_factory=lambda: pad_multiple())

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, **pad_values: float) -> PaddingCollator:
        """A collator for what a tokenizer returns, and for further fields with their padding."""
        ids, types = tokenizer.pad_token_id, tokenizer.pad_token_type_id
        fields = {"input_ids": ids, "attention_mask": 0, "token_type_ids": types, **pad_values}
        return cls(fields, tokenizer.model_max_length)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of these encoded rows: tensors of shape (rows, padded length)."""
        import torch

        batch = {
            name: torch.tensor(self._padded([row[name] for row in rows], value))
            for name, value in self.pad_values.items()
            if name in rows[0]
        }
        if "labels" in rows[0] and "labels" not in batch:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    def _padded(self, lists: Sequence[Sequence[float]], value: float) -> list[list[float]]:
        width = max(len(items) for items in lists)
        rounded = -(-width // self.multiple) * self.multiple
        width = max(width, int(min(rounded, self.max_length)))
        return [[*items, *[value] * (width - len(items))] for items in lists]


@dataclass(frozen=True)
class EncoderDecoderCollator:
    """Batches for encoder-decoders: the decoder reads the target shifted by one token."""

    tokenizer: Any
    model: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of these encoded rows."""
        batch = PaddingCollator.from_tokenizer(self.tokenizer, labels=IGNORE_INDEX)(rows)
        if "labels" in batch:
            batch["decoder_input_ids"] = _decoder_inputs(self.model, batch["labels"])
        return batch


def _decoder_inputs(model: Any, labels: Tensor) -> Tensor:
    """The labels shifted to the next token, as the model's ``forward`` does with labels."""
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:  # Blenderbot and M2M-100 types have none
        shifted: Tensor = shift(labels=labels)
        return shifted
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = model.config.decoder_start_token_id
    return shifted.masked_fill(shifted == IGNORE_INDEX, model.config.pad_token_id)


@dataclass(frozen=True)
class DecoderCollator:
    """Batches for decoders: labels are shifted to the next token; prompts are padded left.

    Labels with weights have shape (rows, tokens, 2): the id and the weight of each.
    """

    tokenizer: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of these encoded rows."""
        import torch

        masked = [{**row, **_with_mask(row["input_ids"])} for row in rows]
        if "labels" in rows[0]:
            masked = [{**row, "labels": [*row["labels"][1:], IGNORE_INDEX]} for row in masked]
        if "weights" in rows[0]:
            masked = [{**row, "weights": [*row["weights"][1:], 0.0]} for row in masked]
        padding = {"labels": IGNORE_INDEX, "weights": 0.0, "position_ids": 0}
        pad_right = PaddingCollator.from_tokenizer(self.tokenizer, **padding)
        batch = pad_right(masked)
        if "weights" in batch:
            # The loss is computed from labels alone. A float32 holds every id below 2**24.
            weights = batch.pop("weights")
            batch["labels"] = torch.stack([batch["labels"].to(weights.dtype), weights], -1)
        if "position_ids" in rows[0]:
            del batch["attention_mask"]  # it would hide where packed rows begin
        if "prompt_ids" in rows[0]:
            # Generation continues a prompt at its right end: reverse, pad, and reverse again.
            padded = pad_right([_with_mask(row["prompt_ids"][::-1]) for row in rows])
            batch["prompt_ids"] = padded["input_ids"].flip(1)
            batch["prompt_mask"] = padded["attention_mask"].flip(1)
        return batch


def _with_mask(ids: Sequence[int]) -> dict[str, Any]:
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}
