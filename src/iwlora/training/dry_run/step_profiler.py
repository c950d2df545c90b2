"""Memory and time of the steps of a dry run: memory of the first ones, time of the others."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.training.dry_run.memory_tracker import MemoryTracker


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

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to track memory."""
        if state.global_step < self._memory_steps:
            self._base = self._tracker.peak = self._tracker.now
            self._tracker.__enter__()  # type: ignore[no-untyped-call]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the peak of forward and backward."""
        if state.global_step < self._memory_steps:
            self.peaks.append(self._tracker.peak - self._base)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step, and stop after the last one."""
        now = time.perf_counter()
        if state.global_step <= self._memory_steps:
            self._tracker.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            if state.global_step == 1:
                self.start_seconds = now - self._began
                self.state, self.after = self._tracker.now - self._base, _memory_now()
        else:
            self.seconds.append(now - self._ended)
        self._ended = time.perf_counter()
        control.should_training_stop = state.global_step == self.last_step


def _memory_now() -> int:
    """Bytes held now: on the GPU, or by the process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    import psutil

    if sys.platform == "linux":  # glibc keeps freed memory for the next step
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
    return int(psutil.Process().memory_info().rss)
