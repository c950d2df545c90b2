"""The methods, one row each. Adding one is a file with a :class:`Method` and a row here."""

from __future__ import annotations

from iwlora.methods.adalora import AdaLora
from iwlora.methods.base import Attached, Method
from iwlora.methods.full import Full
from iwlora.methods.iw_lora import IWLora
from iwlora.methods.lora import Lora
from iwlora.methods.lora_variants import Dora, Eva, LoraPlus, Pissa, RsLora
from iwlora.methods.svd_lora import SvdLora

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "lora": Lora,
    "dora": Dora,
    "rslora": RsLora,
    "lora+": LoraPlus,
    "pissa": Pissa,
    "eva": Eva,
    "svd-lora": SvdLora,
    "adalora": AdaLora,
    "iw-lora": IWLora,
}

__all__ = ["METHODS", "Attached", "Method"]
