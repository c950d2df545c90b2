"""The fine-tuning methods, one row each.

To add a method, write a subclass of :class:`Method` in a file of its own and add a row here.
Other packages add methods through the entry point group ``iwlora.methods``.
"""

from __future__ import annotations

from iwlora.methods.additive.apt import Apt
from iwlora.methods.additive.bottleneck_adapters import Houlsby, Parallel, Pfeiffer
from iwlora.methods.additive.prefix_tuning import Prefix
from iwlora.methods.additive.prompt_generator import PromptGenerator
from iwlora.methods.contract import Attached, Method, ParameterGroup, split_head, train_only
from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.low_rank.adalora import AdaLora
from iwlora.methods.low_rank.iw_lora import IWLora, IWLoraAsWritten
from iwlora.methods.low_rank.iw_lora_controls import (
    ImportanceRanks,
    InvertedImportance,
    PermutedImportance,
    RandomRanks,
    UniformPenalty,
)
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.lora_fa import LoraFa
from iwlora.methods.low_rank.lora_variants import Dora, Eva, LoraPlus, Pissa, RsLora
from iwlora.methods.low_rank.starts.corda import Corda
from iwlora.methods.low_rank.starts.gora import Gora
from iwlora.methods.low_rank.starts.lora_ga import LoraGa
from iwlora.methods.low_rank.svd_lora import SvdLora
from iwlora.methods.peft_models import save_peft_adapter
from iwlora.methods.registry import Registry
from iwlora.methods.saving import save_as_lora, save_parameters
from iwlora.methods.selective.bitfit import BitFit
from iwlora.methods.selective.full_fine_tuning import Full
from iwlora.methods.selective.linear_probe import Head

METHODS = Registry(
    {
        "full": Full,
        "head": Head,
        "bitfit": BitFit,
        "houlsby": Houlsby,
        "pfeiffer": Pfeiffer,
        "parallel": Parallel,
        "prefix": Prefix,
        "prompt-generator": PromptGenerator,
        "apt": Apt,
        "grouped": Grouped,
        "lora": Lora,
        "dora": Dora,
        "rslora": RsLora,
        "lora+": LoraPlus,
        "lora-fa": LoraFa,
        "pissa": Pissa,
        "eva": Eva,
        "lora-ga": LoraGa,
        "corda": Corda,
        "gora": Gora,
        "svd-lora": SvdLora,
        "adalora": AdaLora,
        "iw-lora": IWLora,
        "iw-lora-as-written": IWLoraAsWritten,
        "lora-uniform-penalty": UniformPenalty,
        "iw-lora-permuted": PermutedImportance,
        "iw-lora-inverted": InvertedImportance,
        "lora-importance-ranks": ImportanceRanks,
        "lora-random-ranks": RandomRanks,
    }
)

__all__ = [
    "METHODS",
    "Attached",
    "Method",
    "ParameterGroup",
    "save_as_lora",
    "save_parameters",
    "save_peft_adapter",
    "split_head",
    "train_only",
]
