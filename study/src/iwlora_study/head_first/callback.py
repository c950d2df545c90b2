"""The Trainer callback that holds an adapter back while the head trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerState


class HoldBack(TrainerCallback):
    """No gradient for some parameters in the first steps; everything follows from the step.

    Args:
        parameters: what is held back.
        share: the fraction of all steps, rounded up to whole steps.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], share: float) -> None:
        self._parameters, self._share = parameters, share
        self._handles: list[RemovableHandle] = []

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        """Drop the gradients as they come, so that they do not count in clipping either."""
        self._remove()
        self._handles = [p.register_hook(torch.zeros_like) for p in self._parameters]

    def on_step_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Let everything train from the step on whose number is reached."""
        if not self._holds(state):
            self._remove()

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Without a gradient, the optimizer neither decays a parameter nor counts a step of it."""
        if self._holds(state):
            for parameter in self._parameters:
                parameter.grad = None

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        """Remove all hooks."""
        self._remove()

    def _holds(self, state: TrainerState) -> bool:
        return state.global_step < math.ceil(self._share * state.max_steps)

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
