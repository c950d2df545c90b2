"""The order of the training examples: a function of seed and epoch, the same for all methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

_BATCHES_SORTED_TOGETHER = 50


class Pieces(Sampler[list[int]]):
    """The rows of each piece of each optimizer step that one of several processes computes.

    A step's ``batch_size`` rows are cut into equal pieces, ``accumulate`` for each process. The
    short step at the end of an epoch has as many pieces in every process as it needs; rows too
    few to give each process one are left out.

    >>> order = EpochOrder(10, batch_size=8, seed=0)
    >>> [[len(piece) for piece in Pieces(order, 2, rank, 2)] for rank in (0, 1)]
    [[2, 2, 1], [2, 2, 1]]
    """

    def __init__(self, order: EpochOrder, accumulate: int, rank: int, processes: int) -> None:
        self.sampler = order  # by this name accelerate tells it the epoch
        self._accumulate, self._rank, self._processes = accumulate, rank, processes

    def __len__(self) -> int:
        steps, rest = divmod(len(self.sampler), self.sampler.batch_size)
        return steps * self._accumulate + self._needed(rest)

    def __iter__(self) -> Iterator[list[int]]:
        order, size = list(self.sampler), self.sampler.batch_size
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            pieces = np.array_split(batch, self._needed(len(batch)) * self._processes or 1)
            if len(batch) >= self._processes:
                yield from (piece.tolist() for piece in pieces[self._rank :: self._processes])

    def _needed(self, rows: int) -> int:
        """Pieces of a step in each process."""
        piece = self.sampler.batch_size // (self._accumulate * self._processes)
        return 0 if rows < self._processes else -(-rows // (piece * self._processes))


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
        self.batch_size = batch_size
        self._seed = seed
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self._epoch = epoch

    def rows(self, step: int) -> list[int]:
        """The rows of an optimizer step, counted from 0 over all epochs."""
        epoch, number = divmod(step, -(-self._size // self.batch_size))
        start = number * self.batch_size
        return self._order(epoch)[start : start + self.batch_size]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return iter(self._order(self._epoch))

    def _order(self, epoch: int) -> list[int]:
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(self._size)
        if self._lengths is None:
            return [int(row) for row in order]
        pool = self.batch_size * _BATCHES_SORTED_TOGETHER
        batches = []
        for start in range(0, self._size, pool):
            part = order[start : start + pool]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # A short batch stays last: the sampler above cuts this list into equal pieces.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [full[index] for index in random.permutation(len(full))]
        return [int(row) for batch in [*shuffled, *rest] for row in batch]


class ByLength(Sampler[int]):
    """All rows, the longest first: hardly any padding where the order does not matter.

    >>> by_length = ByLength([3, 9, 5])
    >>> list(by_length), by_length.restored({"logits": np.array([0.9, 0.5, 0.3])})
    ([1, 2, 0], {'logits': array([0.3, 0.9, 0.5])})
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._order = np.argsort(-np.asarray(lengths), kind="stable")

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[int]:
        return iter(self._order.tolist())

    def restored(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays in this order (first axis the row), in that of the rows."""
        places = np.argsort(self._order, kind="stable")
        return {name: values[places] for name, values in outputs.items()}
