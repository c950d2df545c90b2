"""Functions in forms that a CPU computes quickly: the same formulas, other kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.random import SFC64
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from iwlora.training.kernels.casts import cast, casts_kept

_BITS = 15
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Above this many scores in a head, torch's own kernel is safer: it never stores all of them.
_MOST_SCORES = 512 * 512


@contextmanager
def kernel(model: nn.Module) -> Iterator[None]:
    """Faster dropout, attention, normalization and products for every model on a CPU."""
    with casts_kept(model), FastCpuFunctions():
        yield


class FastCpuFunctions(TorchFunctionMode):
    """Inside the block, dropout and scaled dot product attention on a CPU are computed faster.

    PyTorch draws a Bernoulli number for each element, from one serial generator, and has no
    fused attention with dropout on a CPU: together that is more than a third of a training step
    of BERT. Here one random number gives the bits of four masks, and attention is two batched
    matrix products around a softmax. Under autocast, frozen weights are cast once instead of in
    each call, and frozen layer normalization rounds its output to the type that the next product
    takes, so that activations and residuals stay in it. Results differ from torch's own by
    rounding and by which elements are dropped. Calls with other devices, types or arguments are
    left to torch.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> with FastCpuFunctions():
    ...     y = functional.dropout(x, 0.1)
    >>> sorted({round(value, 3) for value in y.tolist()})
    [0.0, 1.111]
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``, or its replacement where that knows all arguments."""
        replacement, kwargs = _REPLACEMENTS.get(func), kwargs or {}
        if replacement is None or not kwargs.keys() <= _ARGUMENTS[func]:
            return func(*args, **kwargs)
        return replacement(*args, **kwargs)


class _Keep(torch.autograd.Function):
    """``factor`` · x where the bits of ``mask`` are ones, 0 where they are zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, factor: float) -> Tensor:
        mask = mask.to(_INTEGERS[x.element_size()])
        ctx.save_for_backward(mask)
        ctx.factor = factor
        return _kept(x, mask, factor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _kept(gradient, mask, ctx.factor), None, None


def _kept(x: Tensor, mask: Tensor, factor: float) -> Tensor:
    kept = (x.view(mask.dtype) & mask).view(x.dtype)
    return kept if factor == 1 else kept.mul_(factor)


def keep_mask(shape: Sequence[int], p: float) -> tuple[Tensor, float]:
    """(an int16 mask whose elements have all bits one or all bits zero, the kept fraction).

    Zeros have probability ``p``, rounded to a multiple of 2⁻¹⁵ below 1. Torch's random generator
    seeds one that is twice as fast.

    >>> mask, kept = keep_mask((100, 100), 0.25)
    >>> sorted(set(mask.flatten().tolist())), kept
    ([-1, 0], 0.75)
    """
    count, dropped = math.prod(shape), min(round(p * 2**_BITS), 2**_BITS - 1)
    seed = torch.empty(2, dtype=torch.int64).random_()
    numbers = SFC64(seed.tolist()).random_raw(-(-count // 4)).view(np.int16)[:count]
    uniform = torch.from_numpy(numbers).view(torch.Size(shape)).bitwise_and_(2**_BITS - 1)
    # The sign of (dropped - 1 - uniform), in every bit: ones where uniform >= dropped.
    mask = uniform.neg_().add_(dropped - 1).bitwise_right_shift_(_BITS)
    return mask, 1 - dropped / 2**_BITS


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """``torch.nn.functional.dropout``: x ⊙ m / E m with m of zeros and ones."""
    if not training or inplace or not (_is_supported(input) and 0 < p < 1):
        return functional.dropout(input, p, training, inplace)
    mask, kept = keep_mask(input.shape, p)
    result: Tensor = _Keep.apply(input, mask, 1 / kept)  # type: ignore[no-untyped-call]
    return result


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``: softmax(scale · Q Kᵀ + mask) V.

    Shapes: (..., queries, d) and (..., keys, d). A query whose keys are all masked attends to all
    of them here and to none in torch; such queries are padding.
    """
    query, key, value = (_autocast(x) for x in (query, key, value))
    scores_each = query.shape[-2] * key.shape[-2]
    # In single precision and without dropout torch's fused kernel is faster.
    fused = dropout_p == 0 and (query.element_size() > 2 or scores_each > _MOST_SCORES)
    supported = query.dtype == key.dtype and _is_supported(query) and 0 <= dropout_p < 1
    if enable_gqa or fused or not supported:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    # A contiguous key is not copied for its transposition.
    scores = torch.matmul(query * factor, key.contiguous().transpose(-1, -2))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril_()
    if attn_mask is not None:
        scores.add_(_added(attn_mask, scores.dtype))
    weights = scores.softmax(-1)
    if dropout_p > 0:
        mask, kept = keep_mask(weights.shape, dropout_p)
        weights, value = _Keep.apply(weights, mask, 1), value * (1 / kept)  # type: ignore[no-untyped-call]
    return torch.matmul(weights, value)


def layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.layer_norm``; autocast rounds input and output, not mean and variance.

    A weight that trains is left to torch in float32: else its gradient is summed in bfloat16.
    """
    trains = any(t is not None and t.requires_grad for t in (weight, bias))
    narrow = input if trains or input.dtype != torch.float32 else _autocast(input)
    if narrow.element_size() > 2 or not _is_supported(input):
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    with torch.autocast("cpu", enabled=False):
        return functional.layer_norm(narrow, normalized_shape, weight, bias, eps)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``: x Wᵀ + b; a frozen W is cast to autocast's type once."""
    if torch.is_autocast_enabled("cpu") and weight.dtype == torch.float32:
        weight = cast(weight, torch.get_autocast_dtype("cpu"))
    return functional.linear(input, weight, bias)


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask to add to the scores: 0 where a boolean mask is true, the least number elsewhere."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _is_supported(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.is_floating_point()


def _autocast(x: Tensor) -> Tensor:
    """``x`` in the precision in which autocast would hand it to attention."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return x.to(torch.get_autocast_dtype("cpu"))
    return x


_REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    functional.dropout: dropout,
    functional.scaled_dot_product_attention: attention,
    functional.layer_norm: layer_norm,
    functional.linear: linear,
}
# A newer torch may have arguments that the replacements do not know: such calls go to torch.
_ARGUMENTS = {old: signature(new).parameters.keys() for old, new in _REPLACEMENTS.items()}
