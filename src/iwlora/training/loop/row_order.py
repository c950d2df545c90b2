"""The order of the training rows: a function of seed and epoch, the same for all methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from iwlora.tasks.kinds.contract import DRAW, STEP

_BATCHES_SORTED_TOGETHER = 50


class EpochSampler(Sampler[int]):
    """Shuffled rows; with ``lengths``, the rows of a batch are of similar length.

    The order depends on the seed and the epoch alone, never on the global random state, so all
    methods see the same batches and a resumed run continues with the right one.

    Args:
        size: number of rows.
        batch_size: rows of an optimizer step.
        seed: of the shuffle.
        lengths: tokens of each row; None leaves rows of all lengths mixed.
        classes: the class id of each row, to draw every class equally often; None: each row once.

    Example:
        >>> sampler = EpochSampler(4, batch_size=2, seed=0)
        >>> sorted(sampler), list(sampler) == list(sampler)
        ([0, 1, 2, 3], True)
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        lengths: Sequence[int] | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        self._size = size
        self.batch_size = batch_size
        self.seed = seed
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._classes = None if classes is None else np.asarray(classes)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch_rows(self.epoch))

    def epoch_rows(self, epoch: int) -> list[int]:
        """The rows of an epoch in their order: all of them, or as many from equal classes."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self._size)
        if self._classes is not None:
            order = order[random.permutation(_equally_often(self._classes[order], random))]
        if self._lengths is not None:
            pool = self.batch_size * _BATCHES_SORTED_TOGETHER
            for start in range(0, self._size, pool):
                part = order[start : start + pool]
                part[:] = part[np.argsort(self._lengths[part], kind="stable")]
            # A short batch stays last: this list is cut into batches of equal size.
            batches = order[: self._size - self._size % self.batch_size]
            batches = batches.reshape(-1, self.batch_size)
            batches[:] = batches[random.permutation(len(batches))]
        rows: list[int] = order.tolist()
        return rows


def _equally_often(classes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As many positions as there are, each class equally often up to one, its rows in turn."""
    present = random.permutation(np.unique(classes))
    draws, rest = divmod(len(classes), len(present))
    drawn = [
        np.resize(np.flatnonzero(classes == label), draws + (number < rest))
        for number, label in enumerate(present)
    ]
    return np.concatenate(drawn)


class DrawnRows(Dataset[dict[str, Any]]):
    """Rows with (seed, epoch, row) in the field ``DRAW``, which decides how they are changed.

    The field ``STEP`` has (seed, epoch, step of the epoch), the last step of a row that is drawn
    several times.

    Args:
        rows: encoded rows.
        order: of the same rows; it knows the epoch.

    Example:
        >>> order = EpochSampler(1, batch_size=1, seed=3)
        >>> DrawnRows([{"labels": 0}], order)[0]
        {'labels': 0, 'draw': (3, 0, 0), 'step': (3, 0, 0)}
    """

    def __init__(self, rows: Any, order: EpochSampler) -> None:
        self._rows, self._order = rows, order
        self._steps_of: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        seed, epoch = self._order.seed, self._order.epoch
        step = int(self._steps(epoch)[row])
        return {**self._rows[row], DRAW: (seed, epoch, row), STEP: (seed, epoch, step)}

    def _steps(self, epoch: int) -> np.ndarray:
        """The step of each row in an epoch; 0 for rows that it does not draw."""
        if self._steps_of is None or self._steps_of[0] != epoch:
            drawn = self._order.epoch_rows(epoch)
            steps = np.zeros(len(self._rows), np.int64)
            steps[drawn] = np.arange(len(drawn)) // self._order.batch_size
            self._steps_of = epoch, steps
        return self._steps_of[1]


class MicroBatchSampler(Sampler[list[int]]):
    """The micro-batches of each optimizer step that one of several processes computes.

    The rows of a step are cut into micro-batches of equal size, ``accumulate`` for each process.
    The short step at the end of an epoch has as many micro-batches in every process as it needs;
    a step of fewer rows than there are processes is left out.

    Args:
        sampler: the order of the rows.
        accumulate: micro-batches of a full step in each process.
        rank: this process, from 0.
        processes: their number.

    Example:
        >>> sampler = EpochSampler(10, batch_size=8, seed=0)
        >>> [[len(batch) for batch in MicroBatchSampler(sampler, 2, rank, 2)] for rank in (0, 1)]
        [[2, 2, 1], [2, 2, 1]]
    """

    def __init__(self, sampler: EpochSampler, accumulate: int, rank: int, processes: int) -> None:
        self.sampler = sampler  # accelerate looks for this name to set the epoch
        self._accumulate, self._rank, self._processes = accumulate, rank, processes

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, without a last one that is left out."""
        steps, rest = divmod(len(self.sampler), self.sampler.batch_size)
        return steps + (rest >= self._processes)

    def step_rows(self, step: int) -> list[int]:
        """The rows that all processes compute in an optimizer step, counted from 0 over epochs."""
        epoch, number = divmod(step, self.steps_per_epoch)
        start = number * self.sampler.batch_size
        return self.sampler.epoch_rows(epoch)[start : start + self.sampler.batch_size]

    def step_micro_batches(self, step: int) -> list[list[list[int]]]:
        """The micro-batches of each process in an optimizer step."""
        return self._split(self.step_rows(step))

    def __len__(self) -> int:
        steps, rest = divmod(len(self.sampler), self.sampler.batch_size)
        return steps * self._accumulate + self._micro_batch_count(rest)

    def __iter__(self) -> Iterator[list[int]]:
        rows, size = list(self.sampler), self.sampler.batch_size
        for step in range(self.steps_per_epoch):
            yield from self._split(rows[step * size : (step + 1) * size])[self._rank]

    def _split(self, rows: Sequence[int]) -> list[list[list[int]]]:
        count = self._micro_batch_count(len(rows)) * self._processes
        parts = [part.tolist() for part in np.array_split(rows, count)]
        return [parts[rank :: self._processes] for rank in range(self._processes)]

    def _micro_batch_count(self, rows: int) -> int:
        """Micro-batches of a step in each process."""
        full = self.sampler.batch_size // (self._accumulate * self._processes)
        return 0 if rows < self._processes else -(-rows // (full * self._processes))


class LongestFirstSampler(Sampler[int]):
    """All rows, the longest first: hardly any padding where the order does not matter.

    Example:
        >>> sampler = LongestFirstSampler([3, 9, 5])
        >>> list(sampler), sampler.restore({"logits": np.array([0.9, 0.5, 0.3])})
        ([1, 2, 0], {'logits': array([0.3, 0.9, 0.5])})
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._order = np.argsort(-np.asarray(lengths), kind="stable")

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[int]:
        return iter(self._order.tolist())

    def restore(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays in this order (first axis the row), put back in the order of the rows."""
        positions = np.argsort(self._order, kind="stable")
        return {name: values[positions] for name, values in outputs.items()}
