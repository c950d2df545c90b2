"""The low-rank updates of a PEFT model with LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from iwlora.distributed import full_tensor, is_sharded
from iwlora.errors import IwloraError
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.sites import is_linear, unwrap


def lora_pairs(model: nn.Module) -> list[LowRankPair]:
    """The (A, B, scaling) of the active adapter of every LoRA layer.

    Linear, embedding and convolution layers are supported, and parameters such as the weights of
    experts (PEFT's ``target_parameters``). The pair of a DoRA layer is its low-rank part, without
    the magnitude. The factors of a convolution are read as matrices of shape (r, d_in · kernel)
    and (d_out, r), a block for each group; those of experts as a matrix for each expert.

    Raises:
        IwloraError: the model has no LoRA layer or one of an unsupported type, FSDP1 or DeepSpeed
            sharded the factors, or a layer has several active adapters.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> config = LoraConfig(target_modules=["0"], r=2)
        >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 6)), config)
        >>> [(pair.name, tuple(pair.A.shape), tuple(pair.B.shape)) for pair in lora_pairs(model)]
        [('0', (2, 4), (6, 2))]
    """
    pairs = [_pair(*layer) for layer in _lora_layers(unwrap(model))]
    if not pairs:
        raise IwloraError(
            f"{type(unwrap(model)).__name__} has no active LoRA layer; wrap it with "
            "peft.get_peft_model(model, LoraConfig(...)) first"
        )
    return pairs


def projects_at_random(model: nn.Module) -> bool:
    """Whether ∂L/∂B is at first a random projection of ∂L/∂W, which shows its own error.

    So it must be at all pairs: the entries of A are drawn alike and B is 0, as PEFT initializes
    them by default; there is no dropout before A; the rank is at least 2; and no factor is sharded.
    """
    configs = getattr(model, "peft_config", {})
    return all(pair.rank > 1 and not is_sharded(pair.B) for pair in lora_pairs(model)) and all(
        getattr(configs.get(adapter), "init_lora_weights", None) in (True, "gaussian")
        and not getattr(layer.lora_dropout[adapter], "p", 0.0)
        for _, layer, adapter in _lora_layers(unwrap(model))
    )


def squared_weights(model: nn.Module) -> dict[str, float]:
    """{site name: ‖W_k‖_F²} of the frozen weights under the active adapters.

    Quantized weights are dequantized one at a time. Raises ``IwloraError`` for a weight that is
    zero or cannot be dequantized.
    """
    return {name: _squared_weight(name, layer) for name, layer, _ in _lora_layers(unwrap(model))}


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, Any, str]]:
    """(site name, LoRA layer, its active adapter)."""
    from peft.tuners.lora import LoraLayer

    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        name = path
        if isinstance(layer, ParamWrapper):  # the parameters of a module have nested wrappers
            name = path.removesuffix(".base_layer" * path.count(".base_layer"))
            if not is_linear(layer.get_base_layer()):
                name = f"{name}.{layer.parameter_name}"
        active = [key for key in layer.active_adapters if key in layer.scaling]
        if len(active) > 1:
            raise IwloraError(
                f"{name} has {len(active)} active adapters ({', '.join(active)}); "
                "activate one with model.set_adapter(NAME)"
            )
        yield from ((name, layer, adapter) for adapter in active)


def _pair(name: str, layer: Any, adapter: str) -> LowRankPair:
    A, B = _factors(layer, adapter)
    if isinstance(layer, ParamWrapper):
        return LowRankPair(name, A, B, float(layer.scaling[adapter]), experts=layer.num_experts)
    base, scaling, rank = layer.get_base_layer(), float(layer.scaling[adapter]), layer.r[adapter]
    if isinstance(base, _ConvNd):
        blocks = (base.groups,) if base.groups > 1 else ()  # group g is B_g A_g
        shape_A = (*blocks, rank // base.groups, A.numel() // rank)
        shape_B = (*blocks, base.out_channels // base.groups, rank // base.groups)
        return LowRankPair(name, A, B, scaling, shape_A, shape_B)
    if A.dim() != 2 or B.dim() != 2:
        raise IwloraError(
            f"the factors of {name} have the shapes {tuple(A.shape)} and {tuple(B.shape)}: they "
            "are sharded by FSDP1 or DeepSpeed ZeRO-3; accepted are unsharded or FSDP2 factors"
        )
    if A.shape[0] != rank:
        raise IwloraError(
            f"{name} is a {type(base).__name__} with {A.shape[0] // rank} updates in one; the "
            "penalty supports LoRA on linear, embedding and convolution layers: remove it from "
            "target_modules and target_parameters"
        )
    return LowRankPair(name, A, B, scaling)


def _factors(layer: Any, adapter: str) -> tuple[Tensor, Tensor]:
    if adapter in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    if adapter not in layer.lora_A or not isinstance(layer.lora_A[adapter], nn.Module):
        raise IwloraError(
            f"{type(layer).__module__}.{type(layer).__name__} does not train a product B A; "
            "the penalty supports LoRA only"
        )
    return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight


def _squared_weight(name: str, layer: Any) -> float:
    from peft.utils.integrations import dequantize_module_weight

    base = layer.get_base_layer()
    if isinstance(layer, ParamWrapper):
        whole: Tensor = base.get_parameter(layer.parameter_name)
    else:
        whole = dequantize_module_weight(base)
    weight = full_tensor(whole.detach())
    if not weight.is_floating_point():
        raise IwloraError(
            f"{name} is a {type(base).__name__} whose weights ({weight.dtype}) cannot be "
            "dequantized, so ‖W‖ is unknown; use relative=False"
        )
    square = float(weight.to(torch.promote_types(weight.dtype, torch.float32)).square().sum())
    if not 0 < square < float("inf"):
        raise IwloraError(
            f"‖W‖² of {name} is {square}, so the penalty cannot be divided by it; use "
            "relative=False"
        )
    return square
