"""Memory and time of the steps of a dry run: memory of the first ones, time of the others."""

from __future__ import annotations

import ctypes
import sys
import time
import weakref
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import TrainerCallback, TrainerControl, TrainerState


class MemoryTracker(TorchDispatchMode):
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


class StepProfiler(TrainerCallback):
    """Measures the memory of the first steps, and times the steps after them.

    For each of the first steps, ``activations`` has the bytes held when its first forward is done,
    and ``peaks`` the most while it computes, both above what the step began with. The first step
    leaves ``state``, the bytes of the optimizer's state, and ``after``, the bytes that the GPU or
    the process then holds. ``start_seconds`` is the time until it ends, ``seconds`` has that of
    each timed step.

    Args:
        memory_steps: number of first steps whose memory is measured.
    """

    def __init__(self, memory_steps: int) -> None:
        self._memory_steps = memory_steps
        self._tracker = MemoryTracker()
        self._base = 0
        self._ended = self._began = time.perf_counter()
        self.activations: list[int] = []
        self.peaks: list[int] = []
        self.state = self.after = 0
        self.seconds: list[float] = []
        self.start_seconds = 0.0
        self.last_step = 0

    def forward_done(self) -> None:
        """Called when a loss is computed."""
        if len(self.activations) == len(self.peaks) < self._memory_steps:
            self.activations.append(self._tracker.now - self._base)

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start to track memory."""
        if state.global_step < self._memory_steps:
            self._base = self._tracker.peak = self._tracker.now
            self._tracker.__enter__()  # type: ignore[no-untyped-call]

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Note the peak of forward and backward."""
        if state.global_step < self._memory_steps:
            self.peaks.append(self._tracker.peak - self._base)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note the step, and stop after the last one."""
        now = time.perf_counter()
        if state.global_step <= self._memory_steps:
            self._tracker.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            if state.global_step == 1:
                self.start_seconds = now - self._began
                self.state, self.after = self._tracker.now - self._base, memory_now()
        else:
            self.seconds.append(now - self._ended)
        self._ended = time.perf_counter()
        control.should_training_stop = state.global_step == self.last_step


def memory_now() -> int:
    """Bytes held now: on the GPU, or by the process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    import psutil

    if sys.platform == "linux":  # glibc keeps freed memory for the next step
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _counts(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided
