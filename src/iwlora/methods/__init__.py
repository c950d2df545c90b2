"""The methods, one row each. Adding one is a file with a :class:`Method` and a row here.

Packages add theirs through the entry point group ``iwlora.methods``.
"""

from __future__ import annotations

from iwlora.methods.adalora import AdaLora
from iwlora.methods.base import Attached, Method
from iwlora.methods.bitfit import BitFit
from iwlora.methods.bottleneck import Houlsby, Parallel, Pfeiffer
from iwlora.methods.controls import (
    ImportanceRanks,
    InvertedImportance,
    PermutedImportance,
    RandomRanks,
    UniformPenalty,
)
from iwlora.methods.full import Full
from iwlora.methods.head import Head
from iwlora.methods.iw_lora import IWLora
from iwlora.methods.lora import Lora
from iwlora.methods.lora_variants import Dora, Eva, LoraPlus, Pissa, RsLora
from iwlora.methods.prefix import Prefix
from iwlora.methods.registry import Registry
from iwlora.methods.svd_lora import SvdLora

METHODS = Registry(
    {
        "full": Full,
        "head": Head,
        "bitfit": BitFit,
        "houlsby": Houlsby,
        "pfeiffer": Pfeiffer,
        "parallel": Parallel,
        "prefix": Prefix,
        "lora": Lora,
        "dora": Dora,
        "rslora": RsLora,
        "lora+": LoraPlus,
        "pissa": Pissa,
        "eva": Eva,
        "svd-lora": SvdLora,
        "adalora": AdaLora,
        "iw-lora": IWLora,
        "lora-uniform-penalty": UniformPenalty,
        "iw-lora-permuted": PermutedImportance,
        "iw-lora-inverted": InvertedImportance,
        "lora-importance-ranks": ImportanceRanks,
        "lora-random-ranks": RandomRanks,
    }
)

__all__ = ["METHODS", "Attached", "Method"]
