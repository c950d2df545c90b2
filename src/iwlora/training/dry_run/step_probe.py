"""What the steps of an estimate take: memory of the first ones, time of the others."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.training.dry_run.tensor_memory import LiveTensors


class StepWatch(TrainerCallback):
    """Counts the memory of the first steps, and times those after.

    Of each counted step: the bytes ``kept`` when its first forward is done, and the most while it
    is ``computing``, both above what was there when it began. The first leaves the ``state`` of
    the optimizer, and a process (or a GPU) that holds ``after`` bytes.
    """

    def __init__(self, counted: int) -> None:
        self._counted = counted
        self._live = LiveTensors()
        self._base = 0
        self._ended = self._began = time.perf_counter()
        self.kept: list[int] = []
        self.computing: list[int] = []
        self.state = self.after = 0
        self.seconds: list[float] = []
        self.starting = 0.0
        self.last = 0

    def forward_done(self) -> None:
        """Called when the loss is there."""
        if len(self.kept) == len(self.computing) < self._counted:
            self.kept.append(self._live.now - self._base)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to count."""
        if state.global_step < self._counted:
            self._base = self._live.peak = self._live.now
            self._live.__enter__()  # type: ignore[no-untyped-call]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gradients are there, activations gone."""
        if state.global_step < self._counted:
            self.computing.append(self._live.peak - self._base)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step, and stop after the last."""
        now = time.perf_counter()
        if state.global_step <= self._counted:
            self._live.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            if state.global_step == 1:
                self.starting = now - self._began
                self.state, self.after = self._live.now - self._base, _memory_now()
        else:
            self.seconds.append(now - self._ended)
        self._ended = time.perf_counter()
        control.should_training_stop = state.global_step == self.last


def _memory_now() -> int:
    """Bytes held now: on the GPU where there is one, else by the process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:  # glibc keeps what was freed, for the next step to use
        give_back(0)
    return int(psutil.Process().memory_info().rss)
