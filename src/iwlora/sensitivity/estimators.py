"""Norms of a weight gradient, computed from a layer's inputs and output gradients.

A linear layer y = x Wᵀ that saw N tokens has the gradient G = ∂L/∂W = Σ_t δ_t x_tᵀ, of shape
(d_out, d_in), where x_t is a row of the input and δ_t = ∂L/∂y_t. The functions here are pure:
they take tensors, and know no models and no hooks. ``x`` is (..., d_in) and ``delta`` is
(..., d_out), with equal leading shapes; results are at least float32. Other shapes raise
``IwloraError``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from iwlora.errors import IwloraError

COLUMNS = 64
"""Columns of the random projection: the norm of one batch is off by at most about 1/√(2·64)."""

_SAVING = 8  # ``auto`` uses the noisy sketch only if it costs at most an eighth of the others


def exact(x: Tensor, delta: Tensor) -> Tensor:
    """‖∂L/∂W‖_F by forming the gradient once: N·d_in·d_out products, one (d_out, d_in) buffer.

    >>> exact(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    3.0
    """
    norm: Tensor = torch.linalg.vector_norm(gradient(x, delta))
    return norm


def ghost(x: Tensor, delta: Tensor) -> Tensor:
    """‖∂L/∂W‖_F without forming the gradient: ‖G‖² = Σ_{s,t} (x_s·x_t)(δ_s·δ_t).

    N²(d_in + d_out) products and two (N, N) buffers: cheaper only for
    N < d_in·d_out / (d_in + d_out). Source: Li et al. 2022, arXiv:2110.05679, §4.

    >>> ghost(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    3.0
    """
    x, delta = tokens(x, delta)
    return ((x @ x.mT) * (delta @ delta.mT)).sum().clamp(min=0).sqrt()


def sketch(x: Tensor, delta: Tensor, seed: str, columns: int = COLUMNS) -> Tensor:
    """An estimate of ‖∂L/∂W‖_F: the norm of G P, with P a random projection drawn from ``seed``.

    Its square is an unbiased estimate of ‖G‖_F², with relative variance at most 2 / ``columns``;
    the norm itself is therefore low by at most about 1 / (4 ``columns``) of its value.
    N·columns·(d_in + d_out) products and one (d_out, columns) buffer. Source: Hutchinson 1990,
    Comm. Statist. Simulation 19(2), applied to GᵀG.

    >>> sketch(torch.tensor([[3.0]]), torch.tensor([[2.0]]), seed="any", columns=1).item()
    6.0
    """
    norm: Tensor = torch.linalg.vector_norm(projected_gradient(x, delta, seed, columns))
    return norm


def auto(x: Tensor, delta: Tensor, seed: str) -> Tensor:
    """The cheaper of :func:`exact` and :func:`ghost`; :func:`sketch` below an eighth of its cost.

    Costs are counted in products over the tokens that carry a gradient.

    >>> auto(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]), seed="any").item()
    3.0
    """
    x, delta = tokens(x, delta)
    count, d_in, d_out = len(x), x.shape[-1], delta.shape[-1]
    dense, gram = count * d_in * d_out, count**2 * (d_in + d_out)
    if _SAVING * count * COLUMNS * (d_in + d_out) < min(dense, gram):
        return sketch(x, delta, seed)
    return ghost(x, delta) if gram < dense else exact(x, delta)


def lora_sketch(A: Tensor, grad_B: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """An estimate of ‖∂L/∂W‖_F² from LoRA's own gradient, with its standard error.

    For y = x Wᵀ + scaling · x Aᵀ Bᵀ with ``A`` of shape (r, d_in) and ``B`` (d_out, r), backward
    gives ∂L/∂B = scaling · G Aᵀ: LoRA's A is a projection that costs nothing. Where the entries
    of A are drawn alike, independent and symmetric about 0, as LoRA draws them, and G does not
    depend on A, as at B = 0, then d_in ‖∂L/∂B‖² / (scaling² ‖A‖²) is unbiased, whatever their
    scale. The r columns of ∂L/∂B are r such estimates; the error comes from their spread (NaN
    for r = 1). It stays the same from step to step, as A does.

    Leading dimensions, as of stacked experts, are those of the results.

    >>> A, G = torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 0.0]])
    >>> lora_sketch(A, 2.0 * G @ A.mT, scaling=2.0)[0].item()
    9.0
    """
    stacked_alike = A.dim() >= 2 and A.shape[:-2] == grad_B.shape[:-2]
    if not stacked_alike or A.dim() != grad_B.dim() or A.shape[-2] != grad_B.shape[-1]:
        raise IwloraError(
            f"cannot read a sketch from A of shape {tuple(A.shape)} and a gradient of B of shape "
            f"{tuple(grad_B.shape)}: accepted are (..., r, d_in) and (..., d_out, r)"
        )
    wide = torch.promote_types(torch.promote_types(A.dtype, grad_B.dtype), torch.float32)
    columns = (grad_B.to(wide) / scaling).square().sum(dim=-2)  # (..., r)
    rank, d_in = A.shape[-2:]
    squares = columns * rank * d_in / A.to(wide).square().sum(dim=(-2, -1)).unsqueeze(-1)
    errors = squares.std(dim=-1) / math.sqrt(rank) if rank > 1 else squares[..., 0] * math.nan
    return squares.mean(dim=-1), errors


def gradient_norms(G: Tensor) -> Tensor:
    """‖G_e‖_F of each of the stacked gradients (..., d_out, d_in); returns (...,).

    >>> gradient_norms(torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]]))
    tensor([5., 1.])
    """
    wide = torch.promote_types(G.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(G, dim=(-2, -1), dtype=wide)
    return norms


def gradient(x: Tensor, delta: Tensor) -> Tensor:
    """∂L/∂W itself, of shape (d_out, d_in)."""
    x, delta = tokens(x, delta)
    return delta.mT @ x


def projected_gradient(x: Tensor, delta: Tensor, seed: str, columns: int = COLUMNS) -> Tensor:
    """G P of shape (d_out, columns) with P from :func:`projection`; G itself if that is no larger.

    E[(G P)(G P)ᵀ] = G Gᵀ, so squared norms and inner products are kept on average.
    """
    x, delta = tokens(x, delta)
    if columns < x.shape[-1]:
        x = x @ projection(seed, x.shape[-1], columns).to(x)
    return delta.mT @ x


def projection(seed: str, d_in: int, columns: int) -> Tensor:
    """Random signs / √columns of shape (d_in, columns): a function of its arguments alone.

    The rows are independent, so E[P Pᵀ] = I; no sketch has to store its projection.

    >>> bool((projection("a", 4, 2) == projection("a", 4, 2)).all())
    True
    """
    key = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=7).digest(), "big")
    generator = torch.Generator().manual_seed(key)
    bits = torch.randint(0, 2, (d_in, columns), generator=generator, dtype=torch.float32)
    return (2 * bits - 1) / math.sqrt(columns)


def tokens(x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """One row for each token with a gradient, in float32 or wider.

    Padding, ignored labels, and all but the pooled token in a classifier's last layer have
    δ = 0: leaving them out changes no gradient and saves its work.
    """
    if x.dim() < 2 or x.shape[:-1] != delta.shape[:-1]:
        raise IwloraError(
            f"cannot form a weight gradient from inputs of shape {tuple(x.shape)} and output "
            f"gradients of shape {tuple(delta.shape)}: accepted are (..., d_in) and (..., d_out) "
            "with at least one leading dimension, equal in both"
        )
    x, delta = x.flatten(0, -2).to(delta.device), delta.flatten(0, -2)
    carrying = delta.abs().amax(dim=-1) != 0  # NaN counts as carrying, so that it is reported
    if not bool(carrying.all()):
        x, delta = x[carrying], delta[carrying]
    wide = torch.promote_types(torch.promote_types(x.dtype, delta.dtype), torch.float32)
    return x.to(wide), delta.to(wide)


Estimator = Callable[[Tensor, Tensor, str], Tensor]

ESTIMATORS: dict[str, Estimator] = {
    "exact": lambda x, delta, _seed: exact(x, delta),
    "ghost": lambda x, delta, _seed: ghost(x, delta),
    "sketch": sketch,
    "auto": auto,
}
