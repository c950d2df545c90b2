"""The head of a regression in the units of the targets: its last layer takes the scale up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from iwlora.head import head_modules
from iwlora.sites import unwrap
from iwlora.tasks.kinds.target_scale import TargetScale

# Float32 has 24 bits: with a larger mean, less than 7 of them would be left for a deviation.
_LARGEST_MEAN = 2.0**17
"""In standard deviations."""


def scale_for_head(scale: TargetScale, model: nn.Module) -> TargetScale:
    """The scale with the reason, if there is one, why this model's head cannot take it up."""
    if scale.not_in_head is not None:
        return scale
    return scale.model_copy(update={"not_in_head": _obstacle(scale, model)})


def _obstacle(scale: TargetScale, model: nn.Module) -> str | None:
    layers = _output_layers(model)
    if len(layers) != 1:
        return (
            f"the head of {type(unwrap(model)).__name__} has {len(layers)} layers with one output"
        )
    if scale.mean and layers[0].bias is None:
        return f"the head of {type(unwrap(model)).__name__} has no bias that could hold their mean"
    if abs(scale.mean) > _LARGEST_MEAN * scale.sd:
        return (
            f"their mean, {scale.mean:g}, is so large beside their standard deviation, "
            f"{scale.sd:g}, that float32 does not tell them apart"
        )
    return None


@contextmanager
def head_in_target_units(model: nn.Module, scale: TargetScale | None) -> Iterator[None]:
    """Within the block the model returns targets in their units, if its head can."""
    if scale is None or scale.not_in_head is not None:
        yield
        return
    (layer,) = _output_layers(model)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    with torch.no_grad():
        layer.weight.copy_(layer.weight.double() * scale.sd)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.double() * scale.sd + scale.mean)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                layer.get_parameter(name).copy_(value)


@torch.no_grad()
def undo_target_units(model: nn.Module, scale: TargetScale | None) -> None:
    """Give a head that was saved in the units of the targets back the scale of its training.

    There it is precise in bfloat16 too: 2005 years are 10 bits, and a bfloat16 has 8.
    """
    if scale is None or scale.not_in_head is not None:
        return
    (layer,) = _output_layers(model)
    layer.weight.copy_(layer.weight.double() / scale.sd)
    if layer.bias is not None:
        layer.bias.copy_((layer.bias.double() - scale.mean) / scale.sd)


def _output_layers(model: nn.Module) -> list[Any]:
    """The trained linear layers of the task head that have one output."""
    base = unwrap(model)
    return [
        module
        for head in head_modules(base)
        for name, module in base.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == 1
        and "original_module" not in name.split(".")  # PEFT's copy from before the training
    ]
