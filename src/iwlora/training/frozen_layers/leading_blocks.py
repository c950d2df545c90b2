"""Which blocks at the beginning of a model compute the same in every run: none of them trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.head import declared_modules, in_modules
from iwlora.methods.contract import BlockReads, Method
from iwlora.sites import Site, blocks, unwrap


@dataclass(frozen=True)
class FrozenBlock:
    """A block whose outputs do not depend on what trains.

    Args:
        block: the module.
        extras: for each output behind the activations where it comes from: the position or the name
            of the argument that is passed on, or None where the output is None. Without a sequence
            (``is_single``) the output is a tensor alone.
        makes_extras: whether it computes such an output itself, as the first block of T5 computes
            the biases of relative positions: then it is always called.
    """

    block: nn.Module
    extras: tuple[int | str | None, ...] = ()
    is_single: bool = True
    makes_extras: bool = False


@dataclass(frozen=True)
class LeadingBlocks:
    """The frozen blocks at the beginning of the module that reads the token ids or the pixels.

    Args:
        encoder: that module.
        frozen: its frozen blocks, in the order in which they are called.
        width: the numbers of a token: its activation, then what is read inside of the blocks.
        dtype: their type.
        reads: what new modules read inside of the blocks, which are then all blocks.
        read_width: the numbers of it.
    """

    encoder: nn.Module
    frozen: tuple[FrozenBlock, ...]
    width: int
    dtype: torch.dtype
    reads: BlockReads | None = None
    read_width: int = 0


def reading_module(model: nn.Module) -> nn.Module:
    """The part of a model that reads token ids or pixels: its encoder, or its backbone."""
    plain: Any = unwrap(model)
    encoder: nn.Module
    encoder = plain.get_encoder() if plain.config.is_encoder_decoder else plain.base_model
    return encoder


def leading_blocks(
    model: nn.Module, forward: Callable[[], Any], reads: BlockReads | None = None
) -> LeadingBlocks | None:
    """Find the frozen blocks from what a forward pass records for the backward pass.

    A block counts if none of its outputs needs a gradient, whatever the reason: trained embeddings,
    prefixes and biases all make the first block's outputs need one. Of a vision model with stages
    only the blocks of the first stage count, and none that computes maps in place of tokens.

    Args:
        model: the model with its method attached.
        forward: computes a batch with it.
        reads: what the method's new modules read inside of the blocks.

    Returns:
        None where no block is frozen, or the model has another structure.
    """
    encoder = reading_module(model)
    if encoder is unwrap(model) or getattr(encoder, "layerdrop", False):  # it leaves out blocks
        return None
    calls: list[tuple[nn.Module, Sequence[Any], dict[str, Any], Any]] = []

    def note(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append((block, args, kwargs, output))

    every_block = blocks(encoder)
    with ExitStack() as stack:
        for block in dict.fromkeys(every_block):
            handle = block.register_forward_hook(note, with_kwargs=True)
            stack.callback(handle.remove)
        with torch.enable_grad(), reads.unread() if reads else nullcontext():
            forward()
    frozen: list[FrozenBlock] = []
    activations: Tensor | None = None
    called = [block for block, *_ in calls]
    for expected, (block, args, kwargs, output) in zip(every_block, calls, strict=False):
        first, *rest = output if isinstance(output, (tuple, list)) else (output,)
        tensors = [x for x in (first, *rest) if isinstance(x, Tensor)]
        plain = isinstance(first, Tensor) and first.dim() == 3 and first.is_floating_point()
        if block is not expected or called.count(block) > 1 or not plain:
            break
        if any(x.requires_grad for x in tensors):
            break
        if activations is not None and first.shape != activations.shape:  # the next stage of Swin
            break
        sources = [_source(x, args, kwargs) for x in rest]
        makes_extras = any(s is None and x is not None for s, x in zip(sources, rest, strict=True))
        is_single = isinstance(output, Tensor)
        frozen.append(FrozenBlock(block, tuple(sources), is_single, makes_extras))
        activations = first
    if activations is None or (reads and len(frozen) < len(every_block)):
        return None
    read_width = reads.taken().shape[-1] if reads else 0
    width = activations.shape[-1] + read_width
    return LeadingBlocks(encoder, tuple(frozen), width, activations.dtype, reads, read_width)


def _source(value: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int | str | None:
    """The position or the name of the argument that is this value; None if there is none."""
    if value is None:
        return None
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    return next((name for name, argument in arguments if argument is value), None)


def has_dropout(model: nn.Module, count: int | None = None) -> bool:
    """Whether the embeddings or the first ``count`` blocks drop something in training.

    Args:
        model: the model; weights are not needed.
        count: None: all blocks.
    """
    plain = unwrap(model)
    return any(
        isinstance(value, float) and value > 0 and (name == "p" or "drop" in name)
        for module in _modules_below(plain, count)
        for name, value in vars(module).items()
        if name != "p" or isinstance(module, nn.modules.dropout._DropoutNd)
    )


def _modules_below(plain: nn.Module, count: int | None) -> Iterator[nn.Module]:
    """The modules of the reading part, without its blocks from ``count`` on, and without a head."""
    encoder = reading_module(plain)
    later = [] if count is None else blocks(encoder)[count:]
    not_below = {id(module) for block in later for module in block.modules()}
    heads = declared_modules(plain)["new"]
    names = {id(module): name for name, module in plain.named_modules()}
    for module in encoder.modules():
        if id(module) not in not_below and not in_modules(names[id(module)], heads):
            yield module


def free_blocks(
    model: nn.Module, method: Method, sites: Sequence[Site], others: Sequence[str] = ()
) -> int:
    """The number of first blocks in which a method trains nothing; 0 where that is not known.

    Args:
        model: the model before the method is attached; weights are not needed.
        method: the method.
        sites: those that it adapts.
        others: names of modules that train whatever the method is, without new modules.
    """
    trained = method.trained_modules(model, sites)
    return 0 if trained is None else first_trained_block(model, [*others, *trained])


def first_trained_block(model: nn.Module, trained: Sequence[str]) -> int:
    """The number of blocks below the lowest that trains, from names alone.

    Args:
        model: the model before a method is attached; weights are not needed.
        trained: names of modules or parameters of it that train, without those of new modules.

    Returns:
        0 also where something else that the blocks may read trains, such as embeddings.
    """
    names = {id(module): name for name, module in model.named_modules()}
    encoder = reading_module(model)
    of_blocks = [names[id(block)] for block in blocks(encoder)]
    lowest = len(of_blocks)
    for name in trained:
        depth = next((d for d, block in enumerate(of_blocks) if in_modules(name, [block])), None)
        if depth is None and in_modules(name, [names[id(encoder)]]):
            return 0
        lowest = min(lowest, len(of_blocks) if depth is None else depth)
    return lowest
