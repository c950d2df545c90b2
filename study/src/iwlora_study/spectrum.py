"""How many directions a matrix has: the effective rank of its spectrum, and a whitened spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_rank(singular_values: Tensor) -> float:
    """exp(−Σ p log p) with p = σ² / Σ σ²: 1 for one direction, n for n directions of equal size.

    Args:
        singular_values: σ, in any order.

    Returns:
        A number from 1 to the number of singular values; 0 if all of them are 0.

    Example:
        >>> round(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])), 6)
        3.0

    Source:
        Roy and Vetterli 2007, "The effective rank", equation 4, with p of σ² in place of σ.
    """
    largest = singular_values.max()
    if largest <= 0:
        return 0.0
    energy = (singular_values.double() / largest.double()).square()  # no overflow, no underflow
    p = energy / energy.sum()
    return math.exp(float(torch.special.entr(p).sum()))


def whitened_singular_values(G: Tensor, C: Tensor, ridge: float) -> Tensor:
    """The singular values of G (C + λI)^(−1/2), with λ = ridge · tr(C) / d_in.

    With C + λI = L Lᵀ these are the singular values of L⁻¹ Gᵀ, because both have the same
    G (C + λI)⁻¹ Gᵀ. A Cholesky factor takes a small part of the time of an inverse root.

    Args:
        G: a gradient of the shape (d_out, d_in).
        C: the second moments E[x xᵀ] of the inputs, (d_in, d_in), not all 0.
        ridge: above 0, so that directions without inputs are not divided by 0.

    Returns:
        min(d_out, d_in) numbers in float64, the largest first.

    Example:
        >>> G, C = torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([9.0, 1.0]))
        >>> whitened_singular_values(G, C, ridge=1e-9).round(decimals=6)
        tensor([1., 1.], dtype=torch.float64)
    """
    G, C = G.double(), C.double()
    damped = C + ridge * C.trace() / len(C) * torch.eye(len(C), dtype=C.dtype, device=C.device)
    L = torch.linalg.cholesky(damped)
    found: Tensor = torch.linalg.svdvals(torch.linalg.solve_triangular(L, G.mT, upper=False))
    return found
