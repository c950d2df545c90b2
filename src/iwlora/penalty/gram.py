"""The penalty Σ_k c_k ‖scaling_k B_k A_k‖_F² in closed form, without computing B A.

With the r × r Gram matrices S = A Aᵀ and T = Bᵀ B,

    ‖B A‖_F² = tr(T S),    ∂/∂A ‖B A‖_F² = 2 T A,    ∂/∂B ‖B A‖_F² = 2 B S,

at O(r² (d_in + d_out)) operations instead of the O(r d_in d_out) of the dense product. Sites of
equal shape are stacked, so the number of kernels does not grow with the model's depth. Everything
is computed in float32 or wider, whatever the parameters' type and inside autocast too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from iwlora.penalty.low_rank_pair import LowRankPair


def squared_norms(A: Tensor, B: Tensor) -> Tensor:
    """‖B A‖_F² for A of shape (..., r, d_in) and B of shape (..., d_out, r); returns (...,).

    >>> A, B = torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> squared_norms(A, B).item()
    25.0
    """
    return ((A @ A.mT) * (B.mT @ B)).sum(dim=(-2, -1))


def gradients(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """(∂/∂A, ∂/∂B) of ‖B A‖_F², in the shapes of A (..., r, d_in) and B (..., d_out, r)."""
    return 2 * (B.mT @ B) @ A, 2 * B @ (A @ A.mT)


def penalty(pairs: Sequence[LowRankPair], coefficients: Sequence[float]) -> Tensor:
    """Σ_k c_k ‖scaling_k B_k A_k‖_F² as a scalar whose backward pass is the closed form.

    If the factors have leading dimensions, as in stacked adapters, the terms are summed over them.

    >>> pair = LowRankPair("w", torch.eye(2), torch.eye(2), scaling=2.0)
    >>> penalty([pair], [0.5]).item()
    4.0
    """
    factors = [factor for pair in pairs for factor in pair.matrices()]
    value: Tensor = _Penalty.apply(  # type: ignore[no-untyped-call]
        _strengths(pairs, coefficients), *factors
    )
    return value


def penalty_gradients(
    pairs: Sequence[LowRankPair], coefficients: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """[(∂/∂A_k, ∂/∂B_k)] of :func:`penalty`, in the order, shapes and dtypes of ``pairs``."""
    with torch.no_grad():
        factors = [pair.matrices() for pair in pairs]
        both = _gradients(factors, _strengths(pairs, coefficients))
        return [pair.layer_factors(dA, dB) for pair, (dA, dB) in zip(pairs, both, strict=True)]


class _Penalty(torch.autograd.Function):
    """Forward computes the value, backward the closed-form gradient; only the factors are saved."""

    @staticmethod
    def forward(ctx: Any, strengths: list[float], *flat: Tensor) -> Tensor:
        ctx.strengths = strengths
        ctx.save_for_backward(*flat)
        parts = [
            (strength * squared_norms(A, B).reshape(len(strength), -1).sum(dim=1)).sum()
            for _, A, B, strength in _stacked(_paired(flat), strengths)
        ]
        return torch.stack([part.to(parts[0]) for part in parts]).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        both = _gradients(_paired(ctx.saved_tensors), ctx.strengths, grad)
        return (None, *(gradient for pair in both for gradient in pair))


def _gradients(
    factors: list[tuple[Tensor, Tensor]], strengths: list[float], by: Tensor | float = 1.0
) -> list[tuple[Tensor, Tensor]]:
    result = list(factors)
    for group, A, B, strength in _stacked(factors, strengths):
        strength = strength * (by.to(strength) if isinstance(by, Tensor) else by)
        scale = strength.view(-1, *[1] * (A.dim() - 1))
        first_A, first_B = factors[group[0]]
        dA, dB = (scale * g for g in gradients(A, B))
        parts = zip(group, dA.to(first_A.dtype), dB.to(first_B.dtype), strict=True)
        for k, part_A, part_B in parts:
            result[k] = (part_A, part_B)
    return result


def _stacked(
    factors: list[tuple[Tensor, Tensor]], strengths: list[float]
) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
    """Stack the pairs of equal shape, dtype and device along a new first dimension.

    Yields (their positions, A, B, strengths), in float32 or wider and with autocast off.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, (A, B) in enumerate(factors):
        groups.setdefault((A.shape, B.shape, A.dtype, B.dtype, A.device), []).append(k)
    for group in groups.values():
        A = torch.stack([factors[k][0] for k in group])
        B = torch.stack([factors[k][1] for k in group])
        wide = torch.promote_types(torch.promote_types(A.dtype, B.dtype), torch.float32)
        strength = torch.tensor([strengths[k] for k in group], dtype=wide)
        if A.device.type == "cuda":  # from pinned memory the copy does not wait for the device
            strength = strength.pin_memory()
        with torch.autocast(A.device.type, enabled=False):
            yield group, A.to(wide), B.to(wide), strength.to(A.device, non_blocking=True)


def _strengths(pairs: Sequence[LowRankPair], coefficients: Sequence[float]) -> list[float]:
    """c_k · scaling_k², the factor of ‖B_k A_k‖_F²."""
    return [c * pair.scaling**2 for c, pair in zip(coefficients, pairs, strict=True)]


def _paired(flat: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
