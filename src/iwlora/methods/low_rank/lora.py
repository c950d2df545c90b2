"""LoRA, as PEFT implements it: W + (lora_alpha / r) B A with A of shape (r, d_in)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.methods.contract import Attached, Method, check_rank
from iwlora.results import layout
from iwlora.sites import head_modules

if TYPE_CHECKING:
    from torch import nn

    from iwlora.penalty.gram import LowRankPair
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class Lora(Method):
    """Low-rank adaptation: each site learns Δ = (lora_alpha / rank) B A, with B = 0 at first."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank adaptation at one rank for every matrix"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    size_knob: ClassVar[str | None] = "rank"
    unpackable: ClassVar[str | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    """What a variant adds to ``peft.LoraConfig``."""

    rank: Annotated[int, Field(ge=1, strict=True)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def parameters(self, model: nn.Module, sites: Sequence[Site], size: int | None) -> int:
        """r Σ_k (d_in + d_out)."""
        return (size or self.rank) * sum(site.d_in + site.d_out for site in sites)

    def check(self, sites: Sequence[Site], size: int | None) -> None:
        """The rank must not be above the smaller side of any matrix."""
        check_rank(size or self.rank, sites, "method.rank")

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Wrap the model with PEFT's LoRA on the given sites."""
        return self._attach(model, sites, size, seed, **self.options)

    def _attach(
        self, model: Any, sites: Sequence[Site], size: int | None, seed: int, **options: Any
    ) -> Attached:
        from peft import LoraConfig

        from iwlora.penalty.lora_pairs import lora_pairs

        rank = size or self.rank
        self.check(sites, rank)
        config = LoraConfig(
            r=rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT accepts fractions
            lora_dropout=self.dropout,
            **adapter_places(model, sites),
            **options,
        )
        peft_model = wrap(model, config, seed)
        adapter, head = declared(peft_model)
        return Attached(
            model=peft_model,
            adapter=adapter,
            head=head,
            save=lambda folder: save_adapter(peft_model, folder),
            count=lambda: sum(peft_model.get_parameter(name).numel() for name in adapter),
            pairs=tuple(lora_pairs(peft_model)),
        )


def adapter_places(model: Any, sites: Sequence[Site]) -> dict[str, Any]:
    """The arguments of a PEFT configuration that say where: sites, head, kind of task."""
    from transformers.pytorch_utils import Conv1D

    heads, kind = head_modules(model), task_type(model)
    return {
        "target_modules": [site.name for site in sites],
        "modules_to_save": heads or None,
        # PEFT's model for question answering keeps token_type_ids from the model inside.
        "task_type": None if kind == "QUESTION_ANS" else kind,
        "fan_in_fan_out": any(isinstance(site.layer, Conv1D) for site in sites),
    }


# The end of a model's class name -> what PEFT calls its task.
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}


def task_type(model: Any) -> str | None:
    """What PEFT calls the model's task; None where it has no name for it."""
    name = type(model).__name__
    return next((task for end, task in _TASK_TYPES.items() if name.endswith(end)), None)


def wrap(model: Any, config: Any, seed: int) -> Any:
    """``get_peft_model`` with initial values that depend on the seed alone."""
    import torch
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def declared(peft_model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(adapter, head): names of the trainable parameters that PEFT's own layers declare."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    adapter: set[int] = set()
    head: set[int] = set()
    for module in peft_model.modules():
        if isinstance(module, BaseTunerLayer):
            for attribute in module.adapter_layer_names:
                adapter.update(id(p) for p in getattr(module, attribute).parameters())
        elif isinstance(module, ModulesToSaveWrapper):
            head.update(id(p) for p in module.modules_to_save.parameters())
    names = [(name, id(parameter)) for name, parameter in peft_model.named_parameters()]
    return (
        tuple(name for name, key in names if key in adapter),
        tuple(name for name, key in names if key in head),
    )


def save_adapter(peft_model: Any, folder: Path) -> None:
    """Write ``folder/adapter`` as PEFT writes any LoRA adapter."""
    peft_model.save_pretrained(folder / layout.ADAPTER, save_embedding_layers=False)


def save_pairs(peft_model: Any, pairs: Sequence[LowRankPair], folder: Path) -> None:
    """Write ``folder/adapter`` with these updates and the head as a plain LoRA adapter."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    trained = peft_model.peft_config["default"]
    ranks = {pair.name: pair.A.shape[0] for pair in pairs}
    alphas = {pair.name: pair.scaling * ranks[pair.name] for pair in pairs}
    most = max(ranks, key=lambda name: ranks[name])
    alike = len(set(ranks.values())) == 1
    config = LoraConfig(
        r=ranks[most],
        lora_alpha=alphas[most],  # type: ignore[arg-type]
        lora_dropout=trained.lora_dropout,
        rank_pattern={} if alike else ranks,
        alpha_pattern={} if alike else alphas,
        target_modules=list(ranks),
        modules_to_save=trained.modules_to_save,
        task_type=trained.task_type,
        fan_in_fan_out=trained.fan_in_fan_out,
        base_model_name_or_path=trained.base_model_name_or_path,
        inference_mode=True,
    )
    tensors = {f"base_model.model.{pair.name}.lora_A.weight": pair.A for pair in pairs}
    tensors |= {f"base_model.model.{pair.name}.lora_B.weight": pair.B for pair in pairs}
    for name in declared(peft_model)[1]:
        plain = name.replace(".modules_to_save.default", "")
        tensors[plain] = peft_model.get_parameter(name)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    target = folder / layout.ADAPTER
    target.mkdir(parents=True, exist_ok=True)
    save_file(whole, target / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(target))
