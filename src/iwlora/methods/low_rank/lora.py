"""LoRA, as PEFT implements it: W + (lora_alpha / r) B A with A of shape (r, d_in)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.methods.contract import Attached, Method
from iwlora.methods.peft_models import attach_peft, save_peft_adapter, target_arguments
from iwlora.methods.saving import save_as_lora
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import nn


class Lora(Method):
    """Low-rank adaptation: each site learns Δ = (lora_alpha / rank) B A, with B = 0 at first."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank adaptation with one rank for every matrix"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    size_knob: ClassVar[str | None] = "rank"
    not_quantizable: ClassVar[str | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    """The arguments that a variant adds to ``peft.LoraConfig``."""

    rank: Annotated[int, Field(ge=1, strict=True)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """r Σ_k (d_in + d_out)."""
        return self.rank * sum(site.d_in + site.d_out for site in sites)

    def check(self, sites: Sequence[Site]) -> None:
        """The rank must not be above the smaller side of any matrix."""
        check_rank(self.rank, sites, "method.rank")

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Wrap the model with PEFT's LoRA on these sites."""
        return self._attach(model, sites, seed, **self.options)

    def _attach(self, model: Any, sites: Sequence[Site], seed: int, **options: Any) -> Attached:
        from peft import LoraConfig

        from iwlora.penalty.lora_pairs import lora_pairs

        self.check(sites)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT accepts fractions
            lora_dropout=self.dropout,
            **target_arguments(model, sites),
            **options,
        )
        attached = attach_peft(model, config, seed)
        return replace(attached, pairs=tuple(lora_pairs(attached.model)))


def check_rank(rank: int, sites: Sequence[Site], option: str) -> None:
    """Raise ``IwloraError`` for a rank above the smaller side of the smallest matrix."""
    smallest = min(sites, key=lambda site: min(site.d_in, site.d_out))
    limit = min(smallest.d_in, smallest.d_out)
    if not 1 <= rank <= limit:
        raise IwloraError(
            f"{option}={rank} was given; accepted are 1 to {limit}, the smaller side of "
            f"{smallest.name} ({smallest.d_out} × {smallest.d_in})"
        )


# What methods of other packages import from here under version 0.1.0's names, until 0.3.
save_adapter, save_pairs = save_peft_adapter, save_as_lora
