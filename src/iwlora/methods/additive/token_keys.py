"""The keys and values of the tokens in all blocks, as numbers that a run keeps for its epochs.

Nothing that trains reaches the tokens, so these are the same in each epoch. With them, a step
computes the prompts and the memory alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.methods.additive.apt_attention import Prompts


class TokenKeys:
    """What the prompts of a model read of the tokens.

    Args:
        prompts: the prompts, whose blocks keep keys and values.
    """

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._kept = dict(prompts.layers)
        self._numbers = {block: number for number, block in enumerate(self._kept)}
        self._heads = 0
        self._dtype = torch.float32

    def unread(self) -> AbstractContextManager[None]:
        """Inside the block, the model computes the tokens alone."""
        return self._prompts.silent()

    def of_tokens(self, block: nn.Module) -> bool:
        """Whether the block is called on the tokens, and neither on prompts nor on memory."""
        return self._kept[block].computes == "tokens"

    def taken(self) -> Tensor:
        """(rows, tokens, blocks · 2 · d): what the last pass has left, which is forgotten here.

        For each block the keys, then the values, with all heads side by side.
        """
        parts = []
        for kept in self._kept.values():
            assert kept.tokens is not None  # the pass went through all blocks
            keys, values, _ = kept.tokens
            self._heads, self._dtype, kept.tokens = keys.shape[1], keys.dtype, None
            parts += [x.transpose(1, 2).flatten(2) for x in (keys, values)]
        return torch.cat(parts, dim=-1)

    def give(self, block: nn.Module, taken: Tensor, arguments: Mapping[str, Any]) -> None:
        """Let the prompts read in a block what :meth:`taken` has returned.

        Args:
            block: the block, which has been computed before for these tokens.
            taken: (rows, tokens, blocks · 2 · d).
            arguments: with which the block is called, by their names.
        """
        width = taken.shape[-1] // len(self._kept)
        own = taken.narrow(-1, self._numbers[block] * width, width).to(self._dtype)
        keys, values = (
            x.unflatten(-1, (self._heads, -1)).transpose(1, 2) for x in own.chunk(2, dim=-1)
        )
        self._kept[block].tokens = keys, values, arguments.get("attention_mask")
