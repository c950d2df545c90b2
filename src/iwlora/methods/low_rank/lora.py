"""LoRA, as PEFT implements it: W + (lora_alpha / r) B A with A of shape (r, d_in)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods.contract import Attached, Method
from iwlora.methods.peft_models import (
    attach_peft,
    inject_peft,
    save_peft_adapter,
    target_arguments,
    target_name,
)
from iwlora.methods.saving import save_as_lora
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sites import Site, abbreviate_names, not_an_update

if TYPE_CHECKING:
    from torch import nn


class Lora(Method):
    """Low-rank adaptation: each site learns Δ = (lora_alpha / rank) B A, with B = 0 at first."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank adaptation with one rank for every matrix"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    not_for_parameters: ClassVar[str | None] = None
    not_for_convolutions: ClassVar[str | None] = None
    size_knob: ClassVar[str | None] = "rank"
    not_quantizable: ClassVar[str | None] = None
    no_token_training: ClassVar[str | None] = None
    not_packable: ClassVar[str | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    """The arguments that a variant adds to ``peft.LoraConfig``."""
    saved_as_other_ranks: ClassVar[bool] = False
    """Whether the saved adapter has other ranks than ``rank``, and so another ``lora_alpha``."""

    rank: Count = 8
    """Rank of each update; AdaLoRA and uneven ranks have it on average."""
    lora_alpha: Annotated[Number, Field(gt=0)] = 16.0
    """The update is ``lora_alpha / rank`` · B A; with rsLoRA ``lora_alpha / √rank`` · B A."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the input of A."""

    def adapter_settings(self) -> Mapping[str, Any]:
        """The type, and what decides Δ for given A and B."""
        size = {} if self.saved_as_other_ranks else {"r": self.rank, "lora_alpha": self.lora_alpha}
        switches = {name: self.options.get(name, False) for name in ("use_dora", "use_rslora")}
        same = {"peft_type": "LORA", "init_lora_weights": True, "bias": "none"}
        return {**same, "lora_dropout": self.dropout, **size, **switches}

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """Σ_k r (d_in + d_out), over all experts; a router's r is limited to its smaller side."""
        return sum(site_rank(self.rank, site) * site.parameters_per_rank for site in sites)

    def check(self, sites: Sequence[Site]) -> None:
        """The rank must not be above the smaller side of any matrix except a router.

        Dropout must be 0 where the weights of experts are adapted. Of convolutions those without
        groups are adapted, which ``check_convolutions`` says.
        """
        self.check_convolutions(sites)
        check_rank(self.rank, sites, "method.rank")
        parameters = [site.name for site in sites if site.parameter is not None]
        if self.dropout and parameters:
            raise IwloraError(
                f"method.dropout={self.dropout} was given, and PEFT has no dropout for "
                f"{len(parameters)} of the {len(sites)} sites, which it adapts as parameters: "
                f"{abbreviate_names(parameters)}; set method.dropout=0, or leave these out of "
                "targets"
            )

    def check_convolutions(self, sites: Sequence[Site]) -> None:
        """PEFT's update must be one of the convolution's weight."""
        super().check_convolutions(sites)
        reasons = {site.name: reason for site in sites if (reason := not_an_update(site))}
        for reason in reasons.values():
            names = [name for name, other in reasons.items() if other == reason]
            raise IwloraError(
                f"LoRA cannot adapt the convolutions {abbreviate_names(names)}: {reason}; take "
                "other targets, or train them as a whole with "
                f"modules_to_save=[{names[0].rpartition('.')[2]}]"
            )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Wrap the model with PEFT's LoRA on these sites."""
        return self._attach(model, sites, seed, **self.options)

    def attach_with(
        self, model: Any, sites: Sequence[Site], seed: int, **patterns: Mapping[str, float]
    ) -> Attached:
        """Attach with a ``rank_pattern`` and an ``alpha_pattern`` of PEFT."""
        return self._attach(model, sites, seed, **{**self.options, **patterns})

    def insert(self, model: Any, sites: Sequence[Site]) -> list[nn.Parameter]:
        """PEFT's layers of LoRA on these sites, without its wrapper around the model.

        A variant that is more than these layers is attached as a whole.
        """
        if type(self).attach is not Lora.attach:
            return super().insert(model, sites)
        arguments = {**target_arguments(model, sites), "modules_to_save": None}
        del arguments["trainable_token_indices"]
        return inject_peft(model, self._config(sites, **self.options, **arguments))

    def _config(self, sites: Sequence[Site], **arguments: Any) -> Any:
        from peft import LoraConfig

        self.check(sites)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT accepts fractions
            lora_dropout=self.dropout,
            **{**self._limited_patterns(sites), **arguments},
        )

    def _attach(self, model: Any, sites: Sequence[Site], seed: int, **options: Any) -> Attached:
        from iwlora.penalty.lora_pairs import lora_pairs

        config = self._config(sites, **{**options, **target_arguments(model, sites)})
        attached = attach_peft(model, config, seed)
        pairs = tuple(lora_pairs(attached.model))
        different = {site.name for site in sites} ^ {pair.name for pair in pairs}
        if different:
            raise IwloraError(
                f"PEFT adapts other matrices of {type(model).__name__} than the {len(sites)} "
                f"sites; {len(different)} differ: {abbreviate_names(different)}; give other targets"
            )
        return replace(attached, pairs=pairs)

    def _limited_patterns(self, sites: Sequence[Site]) -> dict[str, dict[str, float]]:
        """PEFT's patterns for the routers whose rank is limited; the scaling stays the same."""
        limited = {
            target_name(site): rank
            for site in sites
            if (rank := site_rank(self.rank, site)) < self.rank
        }
        exponent = 0.5 if self.options.get("use_rslora") else 1.0
        return {
            "rank_pattern": limited,
            "alpha_pattern": {
                name: self.lora_alpha * (rank / self.rank) ** exponent
                for name, rank in limited.items()
            },
        }


def site_rank(rank: int, site: Site | SiteSensitivity) -> int:
    """The rank of a site: a router has at most the rank of its matrix."""
    return min(rank, site.largest_rank) if site.is_router else rank


def check_rank(rank: int, sites: Sequence[Site], option: str) -> None:
    """Raise ``IwloraError`` for a rank above the smaller side of the smallest matrix.

    The rank of a router is limited instead, see :func:`site_rank`.
    """
    limiting = [site for site in sites if not site.is_router] or sites
    smallest = min(limiting, key=lambda site: site.largest_rank)
    limit = smallest.largest_rank
    if not 1 <= rank <= limit:
        raise IwloraError(
            f"{option}={rank} was given; accepted are 1 to {limit}, the smaller side of "
            f"{smallest.name} ({smallest.d_out} × {smallest.d_in})"
        )


# What methods of other packages import from here under version 0.1.0's names, until 0.3.
save_adapter, save_pairs = save_peft_adapter, save_as_lora
