"""The loss of an optimizer step: the task's loss over the whole batch, and the regularizer once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification


def task_loss(
    regularizer: Callable[[], Tensor] | None, kind: Kind | None = None
) -> Callable[..., Tensor]:
    """The task's loss averaged over the whole batch of an optimizer step, plus the regularizer.

    A step's items (rows or tokens) may be split into micro-batches of unequal size. Each one takes
    the regularizer times its share of the items, so that the term counts once in a step.

    Args:
        regularizer: a scalar to add to the loss of a step, or None.
        kind: the kind of the task; classification if None.

    Returns:
        A function of (outputs, labels, num_items_in_batch), as ``Trainer.compute_loss_func``.
    """
    task_kind = kind or Classification()

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        total, count = task_kind.loss(outputs, labels), task_kind.count(labels)
        if regularizer is not None and torch.is_grad_enabled():
            total = total + count * regularizer()
        return total / (count if num_items_in_batch is None else num_items_in_batch)

    return loss
