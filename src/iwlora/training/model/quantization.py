"""Frozen weights quantized to 4 bits by bitsandbytes, as in QLoRA."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BitsAndBytesConfig

from iwlora.extras import locate_package
from iwlora.sites import sites
from iwlora.tasks.kinds import Kind
from iwlora.training.device import resolve_precision, run_device
from iwlora.training.model.backbone import meta_backbone
from iwlora.training.recipe import Recipe


def quantized_loading(recipe: Recipe, kind: Kind, trust_remote_code: bool) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that quantize the sites and no other linear layers.

    Weights become 4-bit NormalFloats with double quantization (the scales are quantized too) on
    the device of this process, and are dequantized to the precision of training.

    Args:
        recipe: the recipe of the run; without ``quantize`` there are no arguments.
        kind: the kind of the task, which decides the head of the model.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        IwloraError: bitsandbytes is not installed, or as ``load_backbone``.

    Source:
        Dettmers et al. 2023, arXiv:2305.14314.
    """
    if recipe.quantize is None:
        return {}
    locate_package("bitsandbytes", "quantize=4bit")
    layers, device = meta_backbone(recipe.model, kind, trust_remote_code), run_device()
    bf16 = resolve_precision(recipe.train.requested_precision, device) == "bf16"
    linear = {name for name, layer in layers.named_modules() if isinstance(layer, torch.nn.Linear)}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        llm_int8_skip_modules=sorted(linear - {site.name for site in sites(layers)}),
    )
    return {"quantization_config": config, "device_map": {"": device}}
