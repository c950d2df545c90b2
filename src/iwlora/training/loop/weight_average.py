"""The mean of the trained parameters over the last steps, which is scored and saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn
from transformers import TrainerCallback, TrainerState

from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors, tensor_metadata
from iwlora.methods.contract import Attached
from iwlora.results import layout
from iwlora.training.train_settings import TrainSettings

_STEPS = "steps"

_add_to_means = get_swa_multi_avg_fn()


class AverageLastSteps(TrainerCallback):
    """Averages each trained parameter over the last ``last`` optimizer steps.

    A running mean in one copy of the parameters: θ̄ ← θ̄ + (θ − θ̄) / n after the n-th of these
    steps. Training itself is the same as without it. The steps are the last ones of the training,
    or ``each_epoch``, the last ones of every epoch, for the choice of the best. Steps before the
    method has its final size (``settled()`` is false) do not count: what AdaLoRA has pruned stays
    0. The mean is stored with each checkpoint of these steps.

    It must be called after the callbacks that change parameters.
    """

    def __init__(
        self, attached: Attached, last: int, steps_per_epoch: int, each_epoch: bool
    ) -> None:
        self._attached, self._last = attached, last
        self._steps_per_epoch, self._each_epoch = steps_per_epoch, each_epoch
        self._means: list[Tensor] = []
        self._count = self._end = 0

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Continue with the mean in the checkpoint, if it has one."""
        file = _file(args, state)
        if not state.global_step or not file.is_file():
            return
        stored = load_tensors(file)
        self._means = [stored[name].to(p.device) for name, p in self._parameters().items()]
        self._count = int(tensor_metadata(file)[_STEPS])
        self._end = self._window(state)[1]

    @torch.no_grad()
    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Add the parameters after this step."""
        before, end = self._window(state)
        if state.global_step <= before or not self._attached.settled():
            return
        parameters = [*self._parameters().values()]
        if self._end != end:
            self._means, self._count, self._end = [p.clone() for p in parameters], 0, end
        _add_to_means(self._means, parameters, self._count)
        self._count += 1

    def on_save(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Store the mean so far."""
        if args.should_save and state.global_step <= self._end:
            tensors = dict(zip(self._parameters(), self._means, strict=True))
            save_file(tensors, _file(args, state), metadata={_STEPS: str(self._count)})

    @torch.no_grad()
    def on_train_end(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Set the parameters to the mean; of a best epoch, the mean is what was kept."""
        if state.global_step == self._end and not self._each_epoch:
            self._swap()
            self._means, self._count = [], 0

    @contextmanager
    def in_place(self, state: TrainerState) -> Iterator[None]:
        """Where a step is the last one of a mean, the parameters are the mean inside the block."""
        if state.global_step != self._end or not self._count:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, mean in zip(self._parameters().values(), self._means, strict=True):
            current = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(current)

    def _parameters(self) -> dict[str, Tensor]:
        model = self._attached.model
        return {name: model.get_parameter(name).detach() for name in self._attached.trainable}

    def _window(self, state: TrainerState) -> tuple[int, int]:
        """(the step before the first, the last) of the steps that are averaged next."""
        begin, end = 0, state.max_steps
        if self._each_epoch:
            epoch = -(-state.global_step // self._steps_per_epoch)
            begin = (epoch - 1) * self._steps_per_epoch
            end = min(begin + self._steps_per_epoch, end)
        return max(begin, end - self._last), end


def check_average_last(settings: TrainSettings, steps_per_epoch: int, each_epoch: bool) -> None:
    """Raise ``IwloraError`` if a training has fewer steps than it has to average.

    Args:
        settings: with ``average_last``.
        steps_per_epoch: optimizer steps.
        each_epoch: whether every epoch has a mean of its own.

    Example:
        >>> check_average_last(TrainSettings(average_last=9), steps_per_epoch=3, each_epoch=False)
    """
    most = settings.count_steps(steps_per_epoch)
    steps = "the training has"
    if each_epoch and steps_per_epoch < most:
        most, steps = steps_per_epoch, "with task.selection each epoch has a mean of its own, of"
    if settings.average_last and settings.average_last > most:
        raise IwloraError(
            f"train.average_last={settings.average_last} was given, and {steps} {most} optimizer "
            f"steps; take at most {most}"
        )


def _file(args: Any, state: TrainerState) -> Path:
    checkpoint = layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)
    return checkpoint / layout.AVERAGE
