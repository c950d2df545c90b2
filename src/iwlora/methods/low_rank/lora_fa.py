"""LoRA-FA: A keeps its random start, and B alone is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import nn


class LoraFa(Lora):
    """LoRA with a frozen A, and for B the gradient that is nearest to that of full fine-tuning.

    Δ = s B A moves with full fine-tuning as closely as it can if B's gradient is
    g (A Aᵀ)⁻¹ / s², where g is the clipped ∂L/∂B. PEFT's ``create_lorafa_optimizer`` does the same;
    here the optimizer is the recipe's. The r Σ_k d_out entries of B are trained and counted; the
    file has A too.
    """

    name: ClassVar[str] = "lora-fa"
    summary: ClassVar[str] = "LoRA that trains B only, along the gradient of the whole matrix"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2308.03303"
    not_for_parameters: ClassVar[str | None] = "PEFT's LoRA-FA has layers only"

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """Σ_k r d_out."""
        return sum(self.rank * site.d_out for site in sites)

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA, freeze every A, and correct the gradient of every B."""
        from iwlora.methods.low_rank.lora_fa_gradient import CorrectGradients

        attached = super().attach(model, sites, seed)
        for pair in attached.pairs:
            pair.A.requires_grad_(False)
        trained = {id(pair.B) for pair in attached.pairs}
        get = attached.model.get_parameter
        return replace(
            attached,
            adapter=tuple(name for name in attached.adapter if id(get(name)) in trained),
            count=lambda: sum(pair.B.numel() for pair in attached.pairs),
            derived=sum(pair.A.numel() for pair in attached.pairs),
            callbacks=(*attached.callbacks, CorrectGradients(attached.pairs)),
        )
