"""LoRA in AdaLoRA's form: Δ = (lora_alpha / r) P Λ Q, with P and Q kept almost orthogonal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora, check_rank
from iwlora.methods.peft_models import attach_peft, target_arguments
from iwlora.methods.saving import save_as_lora
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 1_000_000  # PEFT requires the length of a pruning schedule; svd-lora does not prune


class SvdLora(Lora):
    """AdaLoRA without allocation: every site keeps ``rank`` triplets.

    P has the shape (d_out, r), Λ is a diagonal of r numbers that start at 0, and Q has the shape
    (r, d_in). ``orthogonality`` is the weight of the mean of ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F over all
    sites, as in PEFT; the paper sums their squares. It is saved as plain LoRA with B = P and
    A = Λ Q. So the r numbers of each Λ are trained, and they are not counted.
    """

    name: ClassVar[str] = "svd-lora"
    summary: ClassVar[str] = "LoRA in SVD form, with almost orthogonal factors"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    not_for_parameters: ClassVar[str | None] = "PEFT's AdaLoRA has layers only"
    not_for_convolutions: ClassVar[str | None] = "PEFT's AdaLoRA has linear layers only"
    not_packable: ClassVar[str | None] = "its updates have three factors"
    saved_as_other_ranks: ClassVar[bool] = True  # and another alpha: PEFT divides by r + 1e-5

    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    """Weight of the penalty that keeps the columns of P and the rows of Q orthogonal; 0: none."""

    @property
    def initial_rank(self) -> int:
        """The number of triplets of a site before training."""
        return self.rank

    def check(self, sites: Sequence[Site]) -> None:
        """The initial rank must not be above the smaller side of any matrix."""
        self.check_convolutions(sites)
        check_rank(
            self.initial_rank, sites, f"{self.name} with method.rank={self.rank}: initial rank"
        )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Wrap the model with PEFT's AdaLoRA layers."""
        from peft import AdaLoraConfig

        self.check(sites)
        config = AdaLoraConfig(
            init_r=self.initial_rank,
            target_r=self.rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT accepts fractions
            lora_dropout=self.dropout,
            total_step=_STEPS,
            orth_reg_weight=self.orthogonality,
            **target_arguments(model, sites),
        )
        attached = attach_peft(model, config, seed)
        peft_model = attached.model

        def save(folder: Path) -> None:
            save_as_lora(peft_model, list(remaining_pairs(peft_model)), folder)

        return replace(
            attached,
            save=save,
            count=lambda: sum(p.A.numel() + p.B.numel() for p in remaining_pairs(peft_model)),
            regularizer=lambda: self.orthogonality * orthogonality(peft_model),
        )


def remaining_pairs(peft_model: Any) -> Iterator[LowRankPair]:
    """B = P, A = Λ Q and the scaling of each site, over the triplets that are not pruned."""
    import torch

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
        stacked = torch.stack(same)  # (sites, r, d)
        identity = torch.eye(stacked.shape[1], dtype=stacked.dtype, device=stacked.device)
        # In half precision, the small difference from I would be lost.
        with torch.autocast(stacked.device.type, enabled=False):
            total = total + torch.linalg.matrix_norm(stacked @ stacked.mT - identity).sum()
    return total / len(factors)
