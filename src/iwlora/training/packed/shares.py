"""Which rows and tokens of a joint batch belong to which run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# The axes of tokens in what models compute from (rows, tokens): hidden states, attention scores.
_TOKEN_AXES = {1: (), 2: (), 3: (1,), 4: (2, 3)}


class NotPackable(Exception):
    """A model computes something that cannot be split among the runs of a joint batch."""


@dataclass(frozen=True)
class Share:
    """The rows ``start`` to ``stop`` of a joint batch, of which ``tokens`` are the run's own."""

    start: int
    stop: int
    tokens: int

    @property
    def rows(self) -> slice:
        """The rows in the joint batch."""
        return slice(self.start, self.stop)


class Shares:
    """The shares of the runs in the joint batch that is being computed; set before each pass.

    >>> shares = Shares()
    >>> shares.set([2, 1], [3, 4])
    >>> shares.rows, shares.tokens, shares.own_shape(1, torch.Size([3, 4, 8]))
    (3, 4, (1, 4, 8))
    """

    def __init__(self) -> None:
        self.each: list[Share] = []
        self.rows = self.tokens = 0

    def set(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Begin a batch of so many rows and tokens of each run, in this order."""
        starts = [sum(rows[:number]) for number in range(len(rows))]
        self.each = [Share(a, a + n, t) for a, n, t in zip(starts, rows, tokens, strict=True)]
        self.rows, self.tokens = sum(rows), max(tokens)

    @property
    def equal(self) -> bool:
        """Whether all runs have equally many rows, so that a batch is viewed as (runs, ...)."""
        return len({share.stop - share.start for share in self.each}) == 1

    @property
    def padded(self) -> bool:
        """Whether some run's own batch is shorter than the joint one."""
        return any(share.tokens < self.tokens for share in self.each)

    def own_shape(self, run: int, joint: Sequence[int]) -> tuple[int, ...]:
        """The shape that a tensor of the joint batch has when the run is alone."""
        share, shape = self.each[run], list(joint)
        self._check(shape)
        shape[0] = share.stop - share.start
        if self.padded:
            for axis in _TOKEN_AXES[len(shape)]:
                shape[axis] = share.tokens
        return tuple(shape)

    def own(self, run: int, joint: Tensor) -> Tensor:
        """The part of a tensor of the joint batch that is the run's."""
        shape = self.own_shape(run, joint.shape)
        own = joint[self.each[run].rows]
        for axis in range(1, len(shape)):
            own = own.narrow(axis, 0, shape[axis])
        return own

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """One tensor of the joint batch from each run's own, with zeros up to its length."""
        if not self.padded:
            return torch.cat(list(parts))
        axes = _TOKEN_AXES.get(parts[0].dim())
        if axes is None:
            raise NotPackable(f"it computes tensors of {parts[0].dim()} axes")
        return torch.cat([self._padded(part, axes, 0) for part in parts])

    def joined_inputs(self, parts: Sequence[Tensor], value: int) -> Tensor:
        """(rows, tokens) of the joint batch from each run's own, padded with ``value``."""
        return torch.cat([self._padded(part, (1,), value) for part in parts])

    def _padded(self, part: Tensor, axes: Sequence[int], value: float) -> Tensor:
        pads = [0] * (2 * part.dim())  # of the last axis first
        for axis in axes:
            pads[2 * (part.dim() - 1 - axis) + 1] = self.tokens - part.shape[axis]
        return functional.pad(part, pads, value=value) if any(pads) else part

    def _check(self, shape: Sequence[int]) -> None:
        axes = _TOKEN_AXES.get(len(shape))
        wrong = axes is None or any(shape[axis] != self.tokens for axis in axes)
        if not shape or shape[0] != self.rows or (self.padded and wrong):
            raise NotPackable(
                f"it computes a tensor of shape {tuple(shape)} from {self.rows} rows of "
                f"{self.tokens} tokens"
            )
