"""The low-rank updates of a PEFT model, as its layers declare them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from iwlora.errors import IwloraError
from iwlora.penalty.gram import LowRankPair


def lora_pairs(model: nn.Module) -> list[LowRankPair]:
    """The (A, B, scaling) of every LoRA layer's active adapter, under its site's name.

    Linear and embedding layers are covered; of a DoRA layer it is the low-rank part. Raises
    ``IwloraError`` when the model has no LoRA layer, one of another type, or more than one
    active adapter at a site.

    >>> from peft import LoraConfig, get_peft_model
    >>> config = LoraConfig(target_modules=["0"], r=2)
    >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 6)), config)
    >>> [(pair.name, tuple(pair.A.shape), tuple(pair.B.shape)) for pair in lora_pairs(model)]
    [('0', (2, 4), (6, 2))]
    """
    from peft import PeftModel

    base: nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    pairs = list(_pairs(base))
    if not pairs:
        raise IwloraError(
            f"{type(base).__name__} has no active LoRA layer; wrap it with "
            "peft.get_peft_model(model, LoraConfig(...)) first"
        )
    return pairs


def _pairs(model: nn.Module) -> Iterator[LowRankPair]:
    from peft.tuners.lora import LoraLayer

    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        active = [key for key in layer.active_adapters if key in layer.scaling]
        if len(active) > 1:
            raise IwloraError(
                f"{name} has {len(active)} active adapters ({', '.join(active)}); "
                "activate one with model.set_adapter(NAME)"
            )
        for adapter in active:
            A, B = _factors(layer, adapter)
            if A.dim() != 2 or B.dim() != 2:
                raise IwloraError(
                    f"{name} is a {type(layer.get_base_layer()).__name__}; the penalty covers LoRA "
                    "on linear and embedding layers: leave it out of target_modules"
                )
            yield LowRankPair(name, A, B, float(layer.scaling[adapter]))


def _factors(layer: Any, adapter: str) -> tuple[Tensor, Tensor]:
    if adapter in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
