"""Frozen weights in bfloat16: half the memory, while everything that trains stays float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.methods.contract import Attached
from iwlora.training.recipe import Recipe


def frozen_loading(recipe: Recipe) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for the type of the frozen weights; never a larger copy."""
    return {"dtype": getattr(torch, recipe.train.frozen_dtype)}


def keep_head_in_float32(model: nn.Module) -> None:
    """Make the task head float32, and its inputs, in place; the backbone stays as it is."""
    for name in head_modules(model):
        head = model.get_submodule(name).float()
        head.register_forward_pre_hook(_in_float32)


def _in_float32(head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )


def check_trained_in_float32(attached: Attached, method: str) -> None:
    """Refuse a method that trains or changes weights which are not float32.

    Raises:
        IwloraError: an update would be rounded away, or the changed weight would be rounded.
    """
    fix = "take train.frozen_dtype=float32, or lora"
    parameters = [(name, attached.model.get_parameter(name)) for name in attached.trainable]
    coarse = [name for name, parameter in parameters if parameter.dtype != torch.float32]
    if coarse:
        raise IwloraError(
            f"train.frozen_dtype=bfloat16 was given, and {method} trains {len(coarse)} weights of "
            f"the pretrained model, such as {coarse[0]}: bfloat16 would round most updates away; "
            f"{fix}"
        )
    if attached.changes_weights:
        raise IwloraError(
            f"train.frozen_dtype=bfloat16 was given, and {method} removes a part of the pretrained "
            f"weights, which bfloat16 would round; {fix}"
        )
