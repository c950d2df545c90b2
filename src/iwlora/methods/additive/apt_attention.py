"""À-la-carte prompts: trained tokens that read the frozen model, which does not read them.

Each block first computes the tokens of a row, exactly as in the frozen model, and its attention
keeps their keys and values. After the last block, all blocks run again on the prompts of a source,
whose attention reads what was kept. Nothing that trains reaches the tokens, and no dropout, so the
prompts of many sources read one pass of the frozen model, and no prompt reads another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "iwlora_apt"
"""The name of the attention function in transformers."""
_CHILD = "apt"  # of the backbone: the module with what a source trains
_STANDARD_DEVIATION = 0.02  # of initial values, as that of BERT's and ViT's own


class _MemoryKept(Exception):
    """The keys and values of the memory are kept, and nothing else of its block is read."""


class KeptKeys:
    """What the attention of one block has computed in a pass of the model.

    Args:
        computes: what the block computes at the moment.
        tokens: the keys and the values of the tokens, (rows, heads, tokens, d), and the mask.
        memory: the keys and the values of the memory, (1, heads, d_mem, d).
        for_others: whether other sources will read the tokens after the current one.
    """

    def __init__(self) -> None:
        self.computes: Literal["tokens", "memory", "prompts"] = "tokens"
        self.tokens: tuple[Tensor, Tensor, Tensor | None] | None = None
        self.memory: tuple[Tensor, Tensor] | None = None
        self.for_others = False

    @contextmanager
    def computing(self, what: Literal["memory", "prompts"]) -> Iterator[None]:
        """Inside the block, the rows of the block are the memory or the prompts."""
        self.computes = what
        try:
            yield
        finally:
            self.computes = "tokens"


class Prompts(nn.Module):
    """What one source trains, and the pass of its prompts through the frozen blocks.

    With z the tokens, F the frozen block ℓ and m its memory,

        p_{ℓ+1} = F(queries p_ℓ; keys and values [z_ℓ; p_ℓ; m_ℓ]).

    In training F has its dropout here, and not in the pass of the tokens: these are the same in
    each epoch, whether they are kept on the disk or computed again.

    Args:
        embeddings: what the first block reads the tokens from.
        layers: each block, and what its attention keeps.
        prompts: L_p, the number of prompts.
        memory: d_mem, the keys and values that each block adds.
        like: a parameter of the model.
    """

    def __init__(
        self,
        embeddings: nn.Module,
        layers: Sequence[tuple[nn.Module, KeptKeys]],
        prompts: int,
        memory: int,
        like: Tensor,
    ) -> None:
        super().__init__()
        dtype = torch.promote_types(like.dtype, torch.float32)  # half precision trains badly
        # In a tuple they remain modules of the model, and do not become modules of this one.
        self.layers = tuple(layers)
        self._frozen = (embeddings, *(block for block, _ in layers))
        self._answers = True
        self.prompts, self.memory = (
            nn.Parameter(_STANDARD_DEVIATION * torch.randn(*shape, like.shape[-1], dtype=dtype))
            for shape in ((prompts,), (len(layers), memory))
        )
        self.to(like.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens after the last block, with the prompts' mean in the place of the first.

        Args:
            tokens: (rows, tokens, d).
        """
        rows = self.prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
        for (block, kept), memory in zip(self.layers, self.memory.to(tokens.dtype), strict=True):
            with kept.computing("memory"), suppress(_MemoryKept):
                block(memory[None])
            with kept.computing("prompts"), _with_dropout(block, self.training):
                rows = _hidden_states(block(rows))
            kept.memory = None
            if not kept.for_others:
                kept.tokens = None
        prompt = rows.mean(dim=1, keepdim=True).to(tokens.dtype)
        return torch.cat([prompt, tokens[:, 1:]], dim=1)

    def train(self, mode: bool = True) -> Prompts:
        """Set the mode of the prompts alone: embeddings and blocks stay in evaluation mode.

        A model sets its modules in the order in which it got them, and this one is the last.
        """
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside the block, the head reads the tokens of the frozen model."""
        self._answers = False
        try:
            yield
        finally:
            self._answers = True

    def answer(self, block: nn.Module, args: Any, output: Any) -> Any:
        """The hook of the last block, whose output goes to the head."""
        if not self._answers or self.layers[-1][1].computes != "tokens":
            return None
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)


def insert_prompts(
    model: Any, layers: Sequence[tuple[nn.Module, nn.Module]], prompts: int, memory: int
) -> list[nn.Parameter]:
    """Add prompts and memory as the module ``apt`` of the backbone.

    Args:
        model: a model of transformers.
        layers: each block and its self-attention, in their order.
        prompts: the number of prompts.
        memory: the number of keys and values that each block adds.

    Returns:
        The new parameters.
    """
    AttentionInterface.register(NAME, apt_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    kept = []
    for _, attention in layers:
        kept.append(KeptKeys())
        attention.kept_keys = kept[-1]  # type: ignore[assignment]
    base, blocks = model.base_model, [block for block, _ in layers]
    of_blocks = list(zip(blocks, kept, strict=True))
    new = Prompts(base.embeddings, of_blocks, prompts, memory, _norm_weight(blocks[0]))
    base.add_module(_CHILD, new.train(model.training))
    blocks[-1].register_forward_hook(new.answer)
    return list(new.parameters())


def apt_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as PyTorch's function computes it; that of prompts reads what was kept.

    Args:
        module: the attention module, with its ``kept_keys``.
        query: (rows, heads, queries, d).
        key: (rows, heads, keys, d).
        value: (rows, heads, keys, d).
        attention_mask: (rows, 1, queries, keys): true where a query attends to a key, or numbers
            that are added to the scores; None: to all. It is alike for all queries of a row.
        options: the dropout, the scaling and others, passed on.

    Returns:
        (rows, queries, heads, d), and None in the place of the shares.
    """
    kept: KeptKeys = module.kept_keys
    if kept.computes == "tokens":
        kept.tokens = key, value, attention_mask
    elif kept.computes == "memory":
        kept.memory = key, value
        raise _MemoryKept
    elif kept.tokens is not None and kept.memory is not None:
        options["is_causal"] = False
        *of_tokens, attention_mask = kept.tokens
        of_memory = (x.expand(len(query), -1, -1, -1) for x in kept.memory)
        parts = zip(of_tokens, (key, value), of_memory, strict=True)
        key, value = (torch.cat(part, dim=2) for part in parts)
        if attention_mask is not None:
            own = key.shape[2] - attention_mask.shape[-1]
            padding = attention_mask[:, :, :1].expand(-1, -1, query.shape[2], -1)
            seen = padding.new_full((*padding.shape[:-1], own), padding.dtype is torch.bool)
            attention_mask = torch.cat([padding, seen], dim=-1)
    attended: tuple[Tensor, Tensor | None]
    attended = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **options)
    return attended


@contextmanager
def tokens_once(model: Any) -> Iterator[None]:
    """Inside the block, the tokens of a batch are computed by the first call of the model alone.

    Later calls, with the prompts and the head of other sources, read what that call has kept.

    Args:
        model: a model with prompts.
    """
    prompts: Prompts = model.base_model.get_submodule(_CHILD)
    modules = [(model.base_model.embeddings, None), *prompts.layers]
    before = [vars(module).get("forward") for module, _ in modules]
    for module, kept in modules:
        module.forward = partial(_once, module.forward, kept, [])
        if kept is not None:
            kept.for_others = True
    try:
        yield
    finally:
        for (module, kept), forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward
            if kept is not None:
                kept.for_others, kept.tokens = False, None


def start_at_first_token(model: Any, batch: Any) -> None:
    """Add to the prompts what the first block reads at the first token: the class token.

    Args:
        model: a model with prompts.
        batch: the inputs of the model; the mean over its rows is taken.
    """
    prompts: Prompts = model.base_model.get_submodule(_CHILD)
    first_block, _ = prompts.layers[0]
    inputs: list[Tensor] = []
    hook = first_block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(**batch)
            prompts.prompts.add_(inputs[0][:, 0].mean(dim=0))
    finally:
        hook.remove()
        model.train(was_training)


def _once(
    forward: Callable[..., Any], kept: KeptKeys | None, first: list[Any], *args: Any, **options: Any
) -> Any:
    """What ``forward`` returned for tokens the first time; prompts and memory are computed."""
    if kept is not None and kept.computes != "tokens":
        return forward(*args, **options)
    if not first:
        first.append(forward(*args, **options))
    return first[0]


@contextmanager
def _with_dropout(block: nn.Module, has_dropout: bool) -> Iterator[None]:
    block.train(has_dropout)
    try:
        yield
    finally:
        block.eval()


def _hidden_states(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _norm_weight(block: nn.Module) -> Tensor:
    """The weight of a normalization, which is as wide as the hidden states."""
    return next(m.weight for m in block.modules() if isinstance(m, nn.LayerNorm))
