"""The order of the training examples: a function of seed and epoch, the same for all methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_BATCHES_SORTED_TOGETHER = 50


class EpochOrder(Sampler[int]):
    """Shuffled indices; with ``lengths``, neighbours in a batch are of similar length.

    The order depends on ``seed`` and the epoch alone, never on the global random state, so all
    methods see the same batches and a resumed run continues with the right one.

    >>> order = EpochOrder(4, batch_size=2, seed=0)
    >>> sorted(order), list(order) == list(order)
    ([0, 1, 2, 3], True)
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None
    ) -> None:
        self._size = size
        self._batch_size = batch_size
        self._seed = seed
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self._epoch = epoch

    def rows(self, step: int) -> list[int]:
        """The rows of an optimizer step, counted from 0 over all epochs."""
        epoch, number = divmod(step, -(-self._size // self._batch_size))
        start = number * self._batch_size
        return self._order(epoch)[start : start + self._batch_size]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return iter(self._order(self._epoch))

    def _order(self, epoch: int) -> list[int]:
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(self._size)
        if self._lengths is None:
            return [int(row) for row in order]
        pool = self._batch_size * _BATCHES_SORTED_TOGETHER
        batches = []
        for start in range(0, self._size, pool):
            part = order[start : start + pool]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [
                part[i : i + self._batch_size] for i in range(0, len(part), self._batch_size)
            ]
        # A short batch stays last: the sampler above cuts this list into equal pieces.
        full = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        shuffled = [full[index] for index in random.permutation(len(full))]
        return [int(row) for batch in [*shuffled, *rest] for row in batch]
