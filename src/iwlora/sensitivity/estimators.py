"""Norms of a weight gradient from the activations and output gradients that make it.

A linear layer y = x Wᵀ that saw N tokens has the gradient G = ∂L/∂W = Σ_t δ_t x_tᵀ, of shape
(d_out, d_in), where x_t is a row of the input and δ_t = ∂L/∂y_t. The functions here are pure:
they see tensors, no models and no hooks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iwlora.errors import IwloraError


def exact(x: Tensor, delta: Tensor) -> Tensor:
    """‖∂L/∂W‖_F by forming the gradient once.

    ``x`` is (..., d_in), ``delta`` (..., d_out), with equal leading shapes; the result is a
    scalar, at least float32. Cost N·d_in·d_out and one buffer of shape (d_out, d_in).
    Raises ``IwloraError`` for shapes that no linear layer has.

    >>> exact(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    3.0
    """
    x, delta = tokens(x, delta)
    norm: Tensor = torch.linalg.vector_norm(delta.mT @ x)
    return norm


def ghost(x: Tensor, delta: Tensor) -> Tensor:
    """‖∂L/∂W‖_F without forming the gradient: ‖G‖² = Σ_{s,t} (x_s·x_t)(δ_s·δ_t).

    Shapes and errors as in :func:`exact`. Cost N²(d_in + d_out): cheaper only for
    N < d_in·d_out / (d_in + d_out). Source: Li et al. 2022, arXiv:2110.05679, §4.

    >>> ghost(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    3.0
    """
    x, delta = tokens(x, delta)
    return ((x @ x.mT) * (delta @ delta.mT)).sum().clamp(min=0).sqrt()


def tokens(x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten leading dimensions to one row a token, in float32 or wider."""
    if x.dim() < 2 or x.shape[:-1] != delta.shape[:-1]:
        raise IwloraError(
            f"cannot form a weight gradient from inputs of shape {tuple(x.shape)} and output "
            f"gradients of shape {tuple(delta.shape)}: accepted are (..., d_in) and (..., d_out) "
            "with at least one leading dimension, equal in both"
        )
    wide = torch.promote_types(torch.promote_types(x.dtype, delta.dtype), torch.float32)
    return x.flatten(0, -2).to(wide), delta.flatten(0, -2).to(wide)


ESTIMATORS = {"exact": exact, "ghost": ghost}
