"""The repeated blocks of a model, and where one ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.sites.site import Site

if TYPE_CHECKING:
    from torch import nn

# The normalization before the feed-forward network in T5, GPT-2, Llama, ViT types and DINOv2.
_PRE_NORMS = ("layer_norm", "ln_2", "post_attention_layernorm", "layernorm_after", "norm2")


def unwrap(model: nn.Module) -> nn.Module:
    """The model as it was loaded, without PEFT's wrapper."""
    from peft import PeftModel

    base: nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model, in order: the members of its outermost ``ModuleList``s.

    Where these are stages, as in Swin and ConvNeXt, the blocks are the members of the stages.

    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> [type(block).__name__ for block in blocks(BertModel(config))]
    ['BertLayer', 'BertLayer']
    """
    from torch import nn

    if isinstance(model, nn.ModuleList):
        return [block for member in model for block in _of_stage(member) or [member]]
    return [block for child in model.children() for block in blocks(child)]


def is_stage(module: nn.Module) -> bool:
    """Whether a module is a stage of a vision model: blocks that compute at one resolution.

    >>> from transformers import SwinConfig, SwinModel
    >>> config = SwinConfig(image_size=16, depths=[1, 2], num_heads=[1, 2], embed_dim=8)
    >>> model = SwinModel(config)
    >>> [is_stage(stage) for stage in model.encoder.layers], len(blocks(model))
    ([True, True], 3)
    """
    return bool(_of_stage(module))


def block_depth(model: nn.Module, path: Sequence[str]) -> int:
    """The index of a block, by its path in the model; in stages, counted over all of them."""
    index, stage = int(path[-1]), path[:-2]
    if len(stage) < 2 or not is_stage(model.get_submodule(".".join(stage))):
        return index
    stages: Any = model.get_submodule(".".join(stage[:-1]))
    return index + sum(len(_of_stage(earlier)) for earlier in stages[: int(stage[-1])])


def _of_stage(module: nn.Module) -> list[nn.Module]:
    """The blocks of a stage; none of any other module.

    ConvNeXt's layers between stages, a normalization and a convolution, are no blocks.
    """
    from torch import nn

    if not type(module).__name__.endswith("Stage"):
        return []
    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    return [block for members in lists for block in members if any(True for _ in block.children())]


def end_of_block(model: nn.Module, down: Site) -> tuple[nn.Module, bool]:
    """The module that ends a block with a feed-forward network.

    Args:
        model: the model.
        down: the last matrix of the network.

    Returns:
        (module, True) if the module normalizes the sum x + FFN(x) (BERT types, BART);
        (module, False) if its output is that sum (T5, GPT-2, Llama and ViT types).

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
    raise IwloraError(
        f"{type(model).__name__} has blocks of an unknown structure ({down.name}); "
        "take parallel or lora"
    )
