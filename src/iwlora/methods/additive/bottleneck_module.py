"""The module of a bottleneck adapter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, relu, silu

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu, "swish": silu}


class Bottleneck(nn.Module):
    """A(x) = scaling · (f(x Dᵀ + b) Uᵀ + c), with D of shape (size, width) and U (width, size).

    U, c and b are initialized to 0, so A(x) = 0 before training. D is initialized as
    ``torch.nn.Linear`` initializes its weight (He et al. 2022, arXiv:2110.04366).

    >>> adapter = Bottleneck(width=8, size=2, activation="relu", scaling=1.0)
    >>> adapter(torch.ones(3, 8)).abs().max().item()
    0.0
    """

    def __init__(self, width: int, size: int, activation: str, scaling: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(size, width))
        self.down_bias = nn.Parameter(torch.zeros(size))
        self.up = nn.Parameter(torch.zeros(width, size))
        self.up_bias = nn.Parameter(torch.zeros(width))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.activation = activation
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width), in the dtype of ``x``."""
        inner = linear(x.to(self.down.dtype), self.down, self.down_bias)
        inner = _ACTIVATIONS[self.activation](inner)  # (..., size)
        return (self.scaling * linear(inner, self.up, self.up_bias)).to(x.dtype)
