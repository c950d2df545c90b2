"""Frozen weights packed in 4 bits by bitsandbytes, as QLoRA trains on them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.sites import sites

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Packing:
    """4-bit NormalFloat with scales that are quantised too (Dettmers et al. 2023,
    arXiv:2305.14314).

    ``compute`` is the type that weights are unpacked to, ``device`` where the model goes.
    """

    compute: torch.dtype
    device: torch.device

    def arguments(self, skeleton: nn.Module) -> dict[str, Any]:
        """What ``from_pretrained`` is given; of the model's linear layers the sites are packed.

        Raises ``IwloraError`` where bitsandbytes is not installed.
        """
        from torch import nn
        from transformers import BitsAndBytesConfig

        if importlib.util.find_spec("bitsandbytes") is None:
            raise IwloraError(
                "quantize=4bit needs bitsandbytes, which is not installed: "
                "pip install 'iwlora[quantised]'"
            )
        packed = {site.name for site in sites(skeleton)}
        named = skeleton.named_modules()
        others = [name for name, m in named if isinstance(m, nn.Linear) and name not in packed]
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.compute,
            llm_int8_skip_modules=others,
        )
        return {"quantization_config": config, "device_map": {"": self.device}}
