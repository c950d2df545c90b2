"""The repeated blocks of a model, and where one ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.sites.site import Site

if TYPE_CHECKING:
    from torch import nn

# The normalisation before the feed-forward network in T5, GPT-2 and Llama.
_PRE_NORMS = ("layer_norm", "ln_2", "post_attention_layernorm")


def unwrap(model: nn.Module) -> nn.Module:
    """The model as it was loaded, without PEFT's wrapper."""
    from peft import PeftModel

    base: nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model, in order: the members of its outermost ``ModuleList``s.

    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> [type(block).__name__ for block in blocks(BertModel(config))]
    ['BertLayer', 'BertLayer']
    """
    from torch import nn

    if isinstance(model, nn.ModuleList):
        return list(model)
    return [block for child in model.children() for block in blocks(child)]


def end_of_block(model: nn.Module, down: Site) -> tuple[nn.Module, bool]:
    """The module that ends a block with a feed-forward network.

    Args:
        model: the model.
        down: the last matrix of the network.

    Returns:
        (module, True) if the module normalises the sum x + FFN(x) (BERT types, BART);
        (module, False) if its output is that sum (T5, GPT-2 and Llama types).

    Raises:
        IwloraError: the block has another structure.
    """
    path = down.name.split(".")
    parent: Any = unwrap(model).get_submodule(".".join(path[:-1]))
    if hasattr(parent, "LayerNorm"):
        return parent.LayerNorm, True
    if type(parent).__name__.startswith("Bart"):
        return parent.final_layer_norm, True
    block = unwrap(model).get_submodule(".".join(path[:-2]))
    if any(hasattr(block, name) for name in _PRE_NORMS):
        return block, False
    raise IwloraError(f"{type(model).__name__} has blocks of an unknown structure ({down.name})")
