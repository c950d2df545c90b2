"""Stops a training whose numbers are none, and says in which step and with which rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iwlora.errors import Diverged

_SHOWN = 12
_TRY = "lower train.lr, lengthen train.warmup, or take train.precision=fp32 if it is another"


class Finite:
    """Watches the loss and the gradient's norm of every optimizer step.

    ``rows(step)`` are the training rows of a step. On a CPU a step is judged before the
    optimizer moves anything; elsewhere ``every`` so many steps at once, since looking at a number
    makes the host wait for the device.
    """

    def __init__(self, rows: Callable[[int], Sequence[int]], every: int) -> None:
        self._rows, self._every = rows, every
        self._loss: Tensor | None = None
        self._seen: list[tuple[int, Tensor, Tensor]] = []

    def piece(self, loss: Tensor) -> None:
        """Take in the loss of one piece of a step."""
        self._loss = loss if self._loss is None else self._loss + loss

    def step(self, step: int, norm: Tensor | float) -> None:
        """Take in the gradient's norm, which ends a step; raises :class:`Diverged`."""
        loss, self._loss = self._loss, None
        if loss is None:
            return
        self._seen.append((step, loss.detach(), torch.as_tensor(norm, device=loss.device).detach()))
        if loss.device.type == "cpu" or len(self._seen) >= self._every:
            self.judge()

    def judge(self) -> None:
        """Look at the steps taken in so far."""
        seen, self._seen = self._seen, []
        for step, loss, norm in seen:
            for what, value in (("loss", float(loss)), ("norm of the gradient", float(norm))):
                if not torch.isfinite(torch.tensor(value)):
                    raise Diverged(_told(what, value, step, self._rows(step)), step)


def check_answers(split: str, outputs: Mapping[str, Any]) -> None:
    """Raise ``Diverged`` where the trained model answers with NaN: it would count as some class."""
    for name, values in outputs.items():
        numbers = np.asarray(values)
        if np.issubdtype(numbers.dtype, np.floating) and np.isnan(numbers).any():
            raise Diverged(
                f"after the last step the model's {name} for the {split} split are not numbers: "
                f"training diverged; {_TRY}"
            )


def listed(rows: Sequence[int]) -> str:
    """The first rows of a batch, as a message names them."""
    shown = ", ".join(map(str, sorted(rows)[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")
    return f"in the training split, counted from 0: {shown}"


def _told(what: str, value: float, step: int, rows: Sequence[int]) -> str:
    return (
        f"the {what} is {value} in step {step + 1}: training diverged; {_TRY}; else look at the "
        f"rows of that step {listed(rows)}"
    )
