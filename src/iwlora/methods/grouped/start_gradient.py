"""The gradient of what a mixture trains, before its first step: a cheap number about a design."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from iwlora.methods.contract import Attached, Batch, Loss


def start_gradient_norm(attached: Attached, batches: Iterable[Batch], loss: Loss) -> float:
    """‖∂L/∂θ‖ over the adapter's parameters θ at their start, for the mean loss of the batches.

    Low-rank updates and bottleneck adapters start at B = 0 and U = 0, so the gradient of A and of
    the downward projection is 0: the norm is that of ∂L/∂B, ∂L/∂U, the biases and the prefixes
    taken together. Dropout is off, and nothing of the model changes.

    Args:
        attached: a method on a model.
        batches: at least one, on the model's device.
        loss: the mean loss of a batch.

    Returns:
        The norm, without a unit other than the loss's by the parameters'.

    Raises:
        ValueError: there are no batches.
    """
    model, sums = attached.model, dict[str, torch.Tensor]()
    parameters = {name: model.get_parameter(name) for name in attached.adapter}
    training = [module for module in model.modules() if module.training]
    count = 0
    model.eval()
    try:
        for count, batch in enumerate(batches, start=1):  # noqa: B007
            gradients = torch.autograd.grad(
                loss(model, batch), list(parameters.values()), allow_unused=True
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] = sums[name] + gradient if name in sums else gradient
    finally:
        for module in training:
            module.training = True
    if not count:
        raise ValueError("no batches were given")
    return math.hypot(*(float(total.double().norm()) for total in sums.values())) / count
