"""LoRA in AdaLoRA's form: Δ = (lora_alpha / r) P Λ Q, with P and Q kept near orthogonal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.methods.contract import Attached, Method, check_rank
from iwlora.methods.low_rank.lora import adapter_places, declared, save_pairs, wrap

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iwlora.penalty.gram import LowRankPair
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site

_STEPS = 1_000_000  # PEFT wants a schedule for pruning; nothing here follows this one


class SvdLora(Method):
    """AdaLoRA without allocation: every site keeps ``rank`` triplets.

    P has the shape (d_out, r), Λ is a diagonal of r numbers, 0 at first, and Q has (r, d_in).
    ``orthogonality`` is the weight of the mean of ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F over all sites,
    as in PEFT; the paper adds up their squares. What is saved is plain LoRA, B = P and A = Λ Q,
    so the r numbers of each Λ train without being counted.
    """

    name: ClassVar[str] = "svd-lora"
    summary: ClassVar[str] = "LoRA in SVD form, with near orthogonal factors"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    size_knob: ClassVar[str | None] = "rank"
    unpackable: ClassVar[str | None] = None

    rank: Annotated[int, Field(ge=1, strict=True)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5

    def initial_rank(self, rank: int) -> int:
        """Triplets of a site before training."""
        return rank

    def parameters(self, model: nn.Module, sites: Sequence[Site], size: int | None) -> int:
        """r Σ_k (d_in + d_out)."""
        return (size or self.rank) * sum(site.d_in + site.d_out for site in sites)

    def check(self, sites: Sequence[Site], size: int | None) -> None:
        """The rank at first must not be above the smaller side of any matrix."""
        rank = size or self.rank
        check_rank(
            self.initial_rank(rank), sites, f"{self.name} with method.rank={rank}: initial rank"
        )

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Wrap the model with PEFT's AdaLoRA layers."""
        from peft import AdaLoraConfig

        rank = size or self.rank
        self.check(sites, rank)
        config = AdaLoraConfig(
            init_r=self.initial_rank(rank),
            target_r=rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT accepts fractions
            lora_dropout=self.dropout,
            total_step=_STEPS,
            orth_reg_weight=self.orthogonality,
            **adapter_places(model, sites),
        )
        peft_model = wrap(model, config, seed)
        adapter, head = declared(peft_model)

        def save(folder: Path) -> None:
            save_pairs(peft_model, list(kept_pairs(peft_model)), folder)

        return Attached(
            model=peft_model,
            adapter=adapter,
            head=head,
            save=save,
            count=lambda: sum(p.A.numel() + p.B.numel() for p in kept_pairs(peft_model)),
            regularizer=lambda: self.orthogonality * orthogonality(peft_model),
        )


def kept_pairs(peft_model: Any) -> Iterator[LowRankPair]:
    """B = P, A = Λ Q and the scaling of each site, over the triplets that are not pruned."""
    import torch

    from iwlora.penalty.gram import LowRankPair

    pattern = peft_model.peft_config["default"].rank_pattern or {}
    for name, layer in svd_layers(peft_model):
        P, E, Q = (p["default"].detach() for p in (layer.lora_B, layer.lora_E, layer.lora_A))
        mask = pattern.get(f"{name}.lora_E.default", [True] * len(E))
        kept = torch.tensor(mask, device=E.device)
        scaling = layer.scaling["default"] / (float(layer.ranknum["default"].detach()) + 1e-5)
        if kept.any():
            yield LowRankPair(name, (Q * E)[kept], P[:, kept], scaling)


def svd_layers(peft_model: Any) -> Iterator[tuple[str, Any]]:
    """(site name, PEFT's layer with lora_B = P, lora_E = Λ and lora_A = Q)."""
    from peft.tuners.adalora.layer import AdaLoraLayer

    for name, layer in peft_model.get_base_model().named_modules():
        if isinstance(layer, AdaLoraLayer):
            yield name, layer


def orthogonality(peft_model: Any) -> Tensor:
    """Mean of ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F over all sites, as PEFT adds it to a model's loss."""
    import torch

    factors: list[Tensor] = []
    for _, layer in svd_layers(peft_model):
        factors += [layer.lora_A["default"], layer.lora_B["default"].mT]
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for factor in factors:
        by_shape.setdefault(factor.shape, []).append(factor)
    total = factors[0].new_zeros(())
    for same in by_shape.values():
        rows = torch.stack(same)  # (sites, r, d)
        identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        with torch.autocast(rows.device.type, enabled=False):  # PᵀP is I but for small numbers
            total = total + torch.linalg.matrix_norm(rows @ rows.mT - identity).sum()
    return total / len(factors)
