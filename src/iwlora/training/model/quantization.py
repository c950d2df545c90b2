"""Frozen weights quantized to 4 bits by bitsandbytes, as in QLoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from iwlora.extras import locate_package
from iwlora.sites import sites
from iwlora.training.device import resolve_precision, run_device
from iwlora.training.recipe import Recipe


@dataclass(frozen=True)
class Quantization:
    """4-bit NormalFloat with double quantization: the scales are quantized too.

    Args:
        compute_dtype: the type that weights are dequantized to.
        device: where the model is loaded.

    Source:
        Dettmers et al. 2023, arXiv:2305.14314.
    """

    compute_dtype: torch.dtype
    device: torch.device

    def loading_arguments(self, model: nn.Module) -> dict[str, Any]:
        """Arguments of ``from_pretrained`` that quantize the sites and no other linear layers.

        Args:
            model: the model's layers, without weights.

        Raises:
            IwloraError: bitsandbytes is not installed.
        """
        from transformers import BitsAndBytesConfig

        locate_package("bitsandbytes", "quantize=4bit")
        quantized = {site.name for site in sites(model)}
        others = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name not in quantized
        ]
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.compute_dtype,
            llm_int8_skip_modules=others,
        )
        return {"quantization_config": config, "device_map": {"": self.device}}


def quantization(recipe: Recipe) -> Quantization | None:
    """How the frozen weights are quantized, if the recipe asks for it, for this process."""
    if recipe.quantize is None:
        return None
    bf16 = resolve_precision(recipe.train.precision, run_device()) == "bf16"
    return Quantization(torch.bfloat16 if bf16 else torch.float32, run_device())
