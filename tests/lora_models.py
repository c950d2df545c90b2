"""Small LoRA models, a few steps of them, and the penalty's definition."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import iwlora
from conftest import tiny_config
from iwlora.methods.tiny_models import tiny_batch
from iwlora.penalty.gram import (
    LowRankPair,
)


def pairs_of(
    shapes: list[tuple[int, int, int]], seed: int, dtype: torch.dtype
) -> list[LowRankPair]:
    generator = torch.Generator().manual_seed(seed)
    return [
        LowRankPair(
            f"w{i}",
            torch.randn(r, d_in, generator=generator).to(dtype).requires_grad_(),
            torch.randn(d_out, r, generator=generator).to(dtype).requires_grad_(),
            scaling=0.5 + i,
        )
        for i, (r, d_in, d_out) in enumerate(shapes)
    ]


def dense(pairs: list[LowRankPair], coefficients: list[float]) -> torch.Tensor:
    """The definition, by forming every product."""
    terms = [
        c * (p.scaling * p.B @ p.A).norm() ** 2 for c, p in zip(coefficients, pairs, strict=True)
    ]
    return torch.stack(terms).sum()


def lora_model(**options: Any) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    names = ["query", "value", "intermediate.dense"]
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": names, **options})
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    named = model.get_base_model().named_modules()
    return {name: layer for name, layer in named if isinstance(layer, LoraLayer)}


def of_model(model: Any, alpha: float = 0.3) -> tuple[iwlora.Penalty, dict[str, float]]:
    coefficients = {name: 0.2 + 0.1 * i for i, name in enumerate(layers(model))}
    return iwlora.Penalty(model, coefficients, alpha=alpha), coefficients


def one_layer(layer: nn.Module, **options: Any) -> tuple[Any, Any]:
    """(model, its LoRA layer) with both factors away from zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(**{"target_modules": ["0"], "r": 4, "lora_alpha": 6, **options})
    model = get_peft_model(nn.Sequential(layer), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    return model, layers(model)["0"]


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def five_losses(model: Any, architecture: str) -> list[float]:
    """The losses of five steps on one batch, which end lower than they began."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(**tiny_batch(architecture)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    return losses
