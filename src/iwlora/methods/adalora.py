"""AdaLoRA, as PEFT implements it, driven as its paper describes.

Each site learns Δ = (lora_alpha / r₀) P Λ Q with r₀ = 1.5 × ``rank`` triplets; training prunes
the least important ones until ``rank`` triplets a site are left on average. What is saved is
the pruned update as an ordinary LoRA adapter: B = P, A = Λ Q, with a rank for each site.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from iwlora.methods.base import Attached, Method, check_rank
from iwlora.methods.lora import adapter_places, declared, wrap

if TYPE_CHECKING:
    from torch import nn

    from iwlora.sensitivity.record import Sensitivity
    from iwlora.sites import Site

_PLACEHOLDER_STEPS = 1_000_000  # PEFT wants a number; the schedule is set when training begins


class AdaLora(Method):
    """LoRA in SVD form whose least important triplets are pruned during training.

    ``t_init`` and ``t_final`` are the parts of training before pruning begins and after it
    ends, ``delta_t`` the steps between two prunings, ``orthogonality`` the weight of the mean
    of ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F. Zhang et al. 2023, equations 5 to 12.
    """

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "LoRA in SVD form, pruned by importance while training"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    size_knob: ClassVar[str | None] = "rank"

    rank: Annotated[int, Field(ge=1, strict=True)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    t_init: Annotated[float, Field(ge=0, lt=1)] = 0.1
    t_final: Annotated[float, Field(gt=0, lt=1)] = 0.4
    delta_t: Annotated[int, Field(ge=1, strict=True)] = 10
    orthogonality: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.85
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.85

    @model_validator(mode="after")
    def _leaves_time_to_prune(self) -> AdaLora:
        if self.t_init + self.t_final >= 1:
            raise ValueError(
                f"t_init={self.t_init} and t_final={self.t_final} leave no steps for pruning; "
                "accepted are parts that sum to less than 1"
            )
        return self

    def parameters(self, model: nn.Module, sites: Sequence[Site], size: int | None) -> int:
        """About r Σ_k (d_in + d_out): exact where all sites have one shape, else it depends on
        which triplets stay."""
        return (size or self.rank) * sum(site.d_in + site.d_out for site in sites)

    def check(self, sites: Sequence[Site], size: int | None) -> None:
        """The initial rank, half as large again, must not be above any matrix's smaller side."""
        rank = size or self.rank
        check_rank(_initial_rank(rank), sites, f"adalora with method.rank={rank}: initial rank")

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Wrap the model with PEFT's AdaLoRA; a callback prunes after every optimizer step."""
        from peft import AdaLoraConfig

        from iwlora.methods.rank_allocation import RankAllocation, orthogonality

        target = size or self.rank
        self.check(sites, target)
        places = adapter_places(model, sites)
        config = AdaLoraConfig(
            init_r=_initial_rank(target),
            target_r=target,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT accepts fractions
            lora_dropout=self.dropout,
            total_step=_PLACEHOLDER_STEPS,
            deltaT=self.delta_t,
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orthogonality,
            **places,
        )
        peft_model = wrap(model, config, seed)
        adapter, head = declared(peft_model)
        return Attached(
            model=peft_model,
            adapter=adapter,
            head=head,
            save=partial(self._save, peft_model, places, head),
            count=lambda: _count(peft_model),
            regularizer=lambda: self.orthogonality * orthogonality(peft_model),
            callbacks=(RankAllocation(peft_model, self.t_init, self.t_final),),
        )

    def _save(
        self, peft_model: Any, places: dict[str, Any], head: tuple[str, ...], folder: Path
    ) -> None:
        """Write the pruned update as a plain LoRA adapter; exact, since pruned Λ are 0."""
        from peft import LoraConfig
        from safetensors.torch import save_file

        tensors: dict[str, Any] = {}
        ranks: dict[str, int] = {}
        alphas: dict[str, float] = {}
        for name, layer, kept in _kept_triplets(peft_model):
            if not kept.any():
                continue
            E, A, B = (p["default"].detach() for p in (layer.lora_E, layer.lora_A, layer.lora_B))
            tensors[f"base_model.model.{name}.lora_A.weight"] = (A * E)[kept]
            tensors[f"base_model.model.{name}.lora_B.weight"] = B[:, kept]
            ranks[name] = int(kept.sum())
            scaling = layer.scaling["default"] / (float(layer.ranknum["default"]) + 1e-5)
            alphas[name] = scaling * ranks[name]
        for name in head:
            plain = name.replace(".modules_to_save.default", "")
            tensors[plain] = peft_model.get_parameter(name).detach()
        config = LoraConfig(
            r=max(ranks.values()),
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            rank_pattern=ranks,
            alpha_pattern=alphas,
            inference_mode=True,
            base_model_name_or_path=peft_model.peft_config["default"].base_model_name_or_path,
            **{**places, "target_modules": list(ranks)},
        )
        target = folder / "adapter"
        target.mkdir(parents=True, exist_ok=True)
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, target / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(str(target))


def _initial_rank(target: int) -> int:
    return max(target + 1, round(1.5 * target))


def _kept_triplets(peft_model: Any) -> Iterator[tuple[str, Any, Any]]:
    """(site name, layer, mask of the triplets that are not pruned)."""
    from peft.tuners.adalora.layer import AdaLoraLayer

    for name, layer in peft_model.get_base_model().named_modules():
        if isinstance(layer, AdaLoraLayer):
            yield name, layer, layer.lora_E["default"].detach().flatten() != 0


def _count(peft_model: Any) -> int:
    """Parameters of the LoRA adapter that ``save`` would write now, the task head apart."""
    return sum(
        int(kept.sum()) * (layer.in_features + layer.out_features)
        for _, layer, kept in _kept_triplets(peft_model)
    )
