"""Forward and backward passes whose outputs and gradients are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def seeded(seed: int, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    torch.manual_seed(seed)
    return function(*args, **kwargs)


def randomize(model: nn.Module) -> None:
    """Give every trainable parameter, B too, a value of its own."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)


def outcome(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output and every gradient of a forward and a backward pass."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.backward(torch.arange(y.numel()).double().sin().reshape(y.shape).to(y.dtype))
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"y": y.detach(), "x": x.grad, **{name: g.clone() for name, g in grads.items()}}


def near(some: Mapping[str, Tensor], others: Mapping[str, Tensor], tolerance: float) -> bool:
    return some.keys() == others.keys() and all(
        torch.allclose(some[name], others[name], rtol=tolerance, atol=tolerance) for name in some
    )
