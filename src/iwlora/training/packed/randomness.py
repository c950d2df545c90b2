"""Each run's own random numbers, where many runs share a process and a forward pass."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.state import GradientState
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from iwlora.training.packed.shares import NotPackable, Shares


class ProcessState:
    """What the libraries keep once for a process and every run needs for itself.

    These are the random generators of torch, NumPy and Python, and accelerate's record of which
    loader is being read.

    Args:
        device: Where the run's model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self.save()

    def save(self) -> None:
        """Take over the state of the process."""
        self.save_torch()
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._accelerate = dict(vars(GradientState()))

    def restore(self) -> None:
        """Make this the state of the process."""
        self.restore_torch()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        shared = vars(GradientState())
        shared.clear()
        shared.update(self._accelerate)

    def save_torch(self) -> None:
        """Take over torch's generators only."""
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(self._cuda) if self._cuda else None

    def restore_torch(self) -> None:
        """Make the states of torch's generators those of the process."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and self._cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self._cuda)

    def equals(self, other: ProcessState) -> bool:
        """Whether every generator will draw the same numbers."""
        torch_states = ((self.cpu, other.cpu), (self.cuda, other.cuda))
        return (
            all(a is None or b is None or torch.equal(a, b) for a, b in torch_states)
            and self._python == other._python
            and all(map(np.array_equal, self._numpy, other._numpy))
        )

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside the block, the process draws the run's random numbers."""
        outside = copy.copy(self)
        outside.save_torch()
        self.restore_torch()
        try:
            yield
        finally:
            self.save_torch()
            outside.restore_torch()


def begin_as_new_process() -> None:
    """Forget which loaders the run before this one in the process reads."""
    state = GradientState()
    state._set_sync_gradients(True)
    state.dataloader_references = [None]


class OwnRandomness(TorchFunctionMode):
    """Inside the block, dropout in a joint forward pass draws each run's own random numbers.

    A mask has the shape that it has when the run trains alone, and comes from the same function
    under the run's generators: the run gets the masks that it gets alone.

    Args:
        shares: Those of the joint batch.
        states: The process state of each run, in the order of the shares.
    """

    def __init__(self, shares: Shares, states: Sequence[ProcessState]) -> None:
        super().__init__()
        self._shares, self._states = shares, states
        self._alone = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``, or its replacement if it draws random numbers."""
        kwargs = kwargs or {}
        if not self._alone and func is functional.dropout:
            return self._dropout(*args, **kwargs)
        if not self._alone and func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    @contextmanager
    def alone(self, run: int) -> Iterator[None]:
        """Inside the block, one run computes on its own part of the batch."""
        self._alone = True
        try:
            with self._states[run].drawing():
                yield
        finally:
            self._alone = False

    def drop_out(self, x: Tensor, p: Sequence[float]) -> Tensor:
        """Dropout of the rows of each run with its own probability."""
        masks = []
        for run, probability in enumerate(p):
            mask = x.new_ones(self._shares.own_shape(run, x.shape))
            if probability > 0:
                with self.alone(run):
                    mask = functional.dropout(mask, probability)
                if x.element_size() < 4:  # 1 / (1 - p) has only three digits there
                    mask = (mask != 0).float() / (1 - probability)
            masks.append(mask)
        return (x * self._shares.joined(masks)).to(x.dtype)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return functional.dropout(input, p, training, inplace)
        return self.drop_out(input, [p] * len(self._states))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Tensor:
        if dropout_p == 0:
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, **options
            )
        parts = []
        for run, share in enumerate(self._shares.each):
            q, k, v = (self._heads(run, x) for x in (query, key, value))
            mask = attn_mask
            if mask is not None:
                if mask.dim() != 4 or mask.shape[0] not in (1, self._shares.rows):
                    raise NotPackable(f"its attention mask has the shape {tuple(mask.shape)}")
                mask = mask if mask.shape[0] == 1 else mask[share.rows]
                mask = mask[..., : q.shape[-2], : k.shape[-2]]
            with self.alone(run):
                part = functional.scaled_dot_product_attention(
                    q, k, v, mask, dropout_p, is_causal, **options
                )
            parts.append(functional.pad(part, (0, 0, 0, query.shape[-2] - part.shape[-2])))
        return torch.cat(parts)

    def _heads(self, run: int, x: Tensor) -> Tensor:
        """A run's own queries, keys or values, of shape (rows, heads, tokens, width)."""
        shares = self._shares
        if x.dim() != 4 or x.shape[0] != shares.rows or x.shape[2] != shares.tokens:
            raise NotPackable(f"its attention has queries or keys of the shape {tuple(x.shape)}")
        share = shares.each[run]
        return x[share.rows, :, : share.tokens]
