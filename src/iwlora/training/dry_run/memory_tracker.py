"""Bytes of the tensors that are alive, counted by watching PyTorch's dispatcher."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make inside the block, until each is freed.

    ``now`` are their bytes, ``peak`` the most so far, which may be set back to ``now``. Storages
    from before the block and temporary memory inside a kernel are not counted.

    Example:
        >>> with MemoryTracker() as tracker:
        ...     kept = torch.zeros(25) + 1
        >>> tracker.now, tracker.peak
        (100, 200)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the memory that it adds."""
        outputs = func(*args, **(kwargs or {}))
        inputs = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if _counts(x)}
        for output in tree_leaves(outputs):
            if _counts(output) and id(output.untyped_storage()) not in inputs:
                self._add(output.untyped_storage())
        return outputs

    def _add(self, storage: Any) -> None:
        # PyTorch keeps one Python object for a storage as long as the storage lives.
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def freed(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _counts(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided
