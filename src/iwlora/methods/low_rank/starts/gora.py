"""GoRA: ranks by |W · gradient|, and B starts with a compressed step along the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.rank_pattern import allocate_ranks
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST = 4  # times the uniform rank


class Gora(Lora):
    """LoRA with ranks r_k ∝ mean |W_k ⊙ G_k| / √(d_in + d_out), and s B₀ A ≈ −first_step · G_k.

    G is the mean gradient of the first ``max_batches`` training batches at the pretrained weights,
    without dropout. The ranks lie between half and four times ``rank``, and their number of
    parameters is exactly that of the uniform ``rank``; the paper rounds each rank by itself. The
    scaling s = lora_alpha / rank is the same at every site. A is drawn as LoRA's, and
    B₀ = −(first_step / s) √(d_in / r_k) G A⁺ with the pseudo-inverse A⁺ = Aᵀ (A Aᵀ)⁻¹, so that
    ‖s B₀ A‖_F ≈ first_step ‖G‖_F. The result is a plain LoRA adapter.
    """

    name: ClassVar[str] = "gora"
    summary: ClassVar[str] = "LoRA with ranks and first values from the gradient"
    paper: ClassVar[str] = "He et al. 2025, arXiv:2502.12171"
    not_for_parameters: ClassVar[str | None] = "its ranks come from the gradients of layers"
    not_for_convolutions: ClassVar[str | None] = "the ranks come from linear layers only"
    identity_at_init: ClassVar[bool] = False  # it starts after a first step
    not_quantizable: ClassVar[str | None] = (
        "it needs the gradients of the weights, which 4-bit weights do not have"
    )

    first_step: Annotated[Number, Field(ge=0)] = 0.05
    """Size of the first values of the update, as a multiple of the gradient; 0: B starts at 0. The
    default is ours."""
    max_batches: Count = 16
    """Batches of training rows that the ranks and the start are computed from."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA of one rank; ``initialize_with_loss`` then sets the ranks, A and B."""
        attached = super().attach(model, sites, seed)
        return replace(
            attached,
            initialize_with_loss=partial(self._initialize, attached.model, sites, seed),
            ranks=lambda: {pair.name: pair.rank for pair in attached.pairs},
        )

    def rank_pattern(
        self, sites: Sequence[Site], importance: Mapping[str, float]
    ) -> dict[str, int]:
        """{site name: rank} in proportion to importance / √(d_in + d_out), at the cost of ``rank``.

        Args:
            sites: the adapted matrices.
            importance: {site name: mean |W ⊙ G|}.

        Raises:
            IwloraError: every importance is 0.
        """
        if not any(importance.values()):
            raise IwloraError("every gradient is 0: the loss does not depend on these matrices")
        return allocate_ranks(
            {s.name: importance[s.name] / (s.d_in + s.d_out) ** 0.5 for s in sites},
            {s.name: s.parameters_per_rank for s in sites},
            {s.name: min(_MOST * self.rank, s.largest_rank) for s in sites},
            self.rank,
            max(1, self.rank // 2),
        )

    def _initialize(
        self,
        peft_model: Any,
        sites: Sequence[Site],
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        import torch

        from iwlora.methods.low_rank.starts.layers import (
            frozen_weight,
            lora_layers,
            mean_gradients,
            set_rank,
        )

        gradients = mean_gradients(peft_model, batches, loss, self.max_batches)
        layers = lora_layers(peft_model)
        importance = {}
        for name, layer in layers.items():
            weight = frozen_weight(layer).detach()
            weight = weight.mT if layer.fan_in_fan_out else weight
            importance[name] = float((weight * gradients[name]).abs().double().mean())
        # Gradients may be rounded differently in each process, and the ranks must be the same.
        ranks = distributed.run_on_main_process(lambda: self.rank_pattern(sites, importance))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for name, layer in layers.items():
                set_rank(peft_model, name, layer, ranks[name])
                A = layer.lora_A["default"].weight
                G, inverse = gradients[name].double(), torch.linalg.pinv(A.double())
                size = self.first_step / layer.scaling["default"] * (A.shape[1] / len(A)) ** 0.5
                layer.lora_B["default"].weight.copy_(-size * G @ inverse)
