"""Frozen weights in the type of autocast, cast once instead of in each pass.

Autocast keeps the cast of a weight that trains until the pass ends, and casts a frozen one anew in
each call. With few tokens in a batch that takes longer than the product itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_kept: list[Any] = []  # of the blocks that are entered: {weight: (its state, the cast)}


@contextmanager
def casts_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block, ``cast`` remembers the casts of frozen weights.

    A step without checkpoints needs all casts at once anyway, in its backward pass; one with
    gradient checkpointing does not, and then none is remembered.

    Args:
        model: whose weights will be cast.
    """
    if getattr(model, "is_gradient_checkpointing", False):
        yield
        return
    _kept.append(WeakTensorKeyDictionary())
    try:
        yield
    finally:
        _kept.pop()


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``weight.to(dtype)``; of a frozen parameter on a CPU the one that is remembered.

    A weight that was changed in place or replaced is cast again; torch does not tell of a change
    in place through ``weight.data``, and nothing here makes one while a model trains.

    >>> weight = nn.Parameter(torch.ones(2), requires_grad=False)
    >>> with casts_kept(nn.Module()):
    ...     cast(weight, torch.bfloat16) is cast(weight, torch.bfloat16)
    True
    """
    is_frozen = type(weight) is nn.Parameter and not weight.requires_grad
    if not (_kept and is_frozen and weight.device.type == "cpu") or weight.dtype == dtype:
        return weight.to(dtype)
    state = (weight.data_ptr(), weight._version, dtype)
    known: Any = _kept[-1].get(weight)
    if known is None or known[0] != state:
        known = _kept[-1][weight] = state, weight.to(dtype)
    copy: Tensor = known[1]
    return copy
