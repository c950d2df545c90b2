"""The gradient of what a mixture trains, before its first step: a cheap number about a design."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from iwlora.methods.contract import Attached, Batch, Loss


def start_gradient_squares(
    attached: Attached, batches: Iterable[Batch], loss: Loss
) -> dict[str, float]:
    """‖∂L/∂θ‖² of each parameter θ of the adapter at its start, for the mean loss of the batches.

    Low-rank updates and bottleneck adapters start at B = 0 and U = 0, so the gradient of A and of
    the downward projection is 0: what is left are ∂L/∂B, ∂L/∂U, the biases and the prefixes.
    Dropout is off, and nothing of the model changes.

    Args:
        attached: a method on a model.
        batches: at least one, on the model's device.
        loss: the mean loss of a batch.

    Returns:
        {parameter: squared norm}, with a unit of (loss / parameter)².

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
    return {
        name: float((sums[name].double() / count).square().sum()) if name in sums else 0.0
        for name in parameters
    }
