"""The Trainer callback of LoRA-FA: the gradient of B that moves Δ as full fine-tuning would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from iwlora.penalty.low_rank_pair import LowRankPair

_DAMPING = 1e-8  # of A Aᵀ, as in PEFT


class CorrectGradients(TrainerCallback):
    """g ↦ g (A Aᵀ)⁻¹ / s² for the gradient g of each B, once per optimizer step, after clipping.

    It makes ‖s (ΔB) A − ∂L/∂W‖_F smallest where ΔB is the gradient. A must be frozen.
    """

    def __init__(self, pairs: Sequence[LowRankPair]) -> None:
        self._pairs = pairs
        self._inverses: list[Tensor] = []

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        """Invert each s² A Aᵀ, in float64."""
        self._inverses = []
        for pair in self._pairs:
            A = pair.matrices()[0].detach().double()
            damping = _DAMPING * torch.eye(len(A), dtype=A.dtype, device=A.device)
            inverse = torch.linalg.inv(A @ A.mT + damping) / pair.scaling**2
            self._inverses.append(inverse.to(pair.B.dtype))

    def on_pre_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        """Correct the gradients, in place."""
        for pair, inverse in zip(self._pairs, self._inverses, strict=True):
            if pair.B.grad is not None:
                pair.B.grad = (pair.matrix_B(pair.B.grad) @ inverse).view_as(pair.B)
