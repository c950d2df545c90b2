"""Stops a training whose loss, gradients or outputs become NaN or infinite, and names the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iwlora.errors import Diverged

_MOST_ROWS_NAMED = 12
_ADVICE = (
    "lower train.lr, lengthen train.warmup, or take train.precision=fp32 if it is something else"
)


class DivergenceCheck:
    """Checks the loss and the gradient's norm of every optimizer step.

    On a CPU each step is checked before the optimizer changes anything. Elsewhere many steps are
    checked at once, because the host must wait for the device to read a number.

    Args:
        step_rows: the training rows of an optimizer step, counted from 0.
        every: steps between checks on a device that is not a CPU.
    """

    def __init__(self, step_rows: Callable[[int], Sequence[int]], every: int) -> None:
        self._step_rows, self._every = step_rows, every
        self._loss: Tensor | None = None
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []

    def add_loss(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch to that of the step."""
        self._loss = loss if self._loss is None else self._loss + loss

    def end_step(self, step: int, gradient_norm: Tensor | float) -> None:
        """End a step with its gradient's norm; raises ``Diverged`` as :meth:`check`."""
        loss, self._loss = self._loss, None
        if loss is None:
            return
        norm = torch.as_tensor(gradient_norm, device=loss.device).detach()
        self._unchecked.append((step, loss.detach(), norm))
        if loss.device.type == "cpu" or len(self._unchecked) >= self._every:
            self.check()

    def check(self) -> None:
        """Check all steps since the last check.

        Raises:
            Diverged: a loss or a gradient's norm is NaN or infinite.
        """
        steps, self._unchecked = self._unchecked, []
        for step, loss, norm in steps:
            for name, value in (("loss", loss), ("norm of the gradient", norm)):
                if not torch.isfinite(value):
                    raise Diverged(
                        f"the {name} is {float(value)} in step {step + 1}: training diverged; "
                        f"{_ADVICE}; or look at the rows of that step "
                        f"{list_rows(self._step_rows(step))}",
                        step,
                    )


def check_outputs(split: str, outputs: Mapping[str, Any]) -> None:
    """Raise ``Diverged`` for NaN in the outputs of the trained model: it would count as a class."""
    for name, values in outputs.items():
        numbers = np.asarray(values)
        if np.issubdtype(numbers.dtype, np.floating) and np.isnan(numbers).any():
            raise Diverged(
                f"after the last step the model's {name} for the {split} split contain NaN: "
                f"training diverged; {_ADVICE}"
            )


def list_rows(rows: Sequence[int]) -> str:
    """The first rows of a batch, as a message names them."""
    named = ", ".join(map(str, sorted(rows)[:_MOST_ROWS_NAMED]))
    more = ", …" if len(rows) > _MOST_ROWS_NAMED else ""
    return f"in the training split, counted from 0: {named}{more}"
