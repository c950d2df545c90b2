"""How much of a model some of its sites are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from iwlora.sites.blocks import blocks, unwrap
from iwlora.sites.find import all_sites
from iwlora.sites.site import Site
from iwlora.sites.weights import stored_weight

if TYPE_CHECKING:
    from torch import nn


def coverage(model: nn.Module, sites: Sequence[Site]) -> float:
    """The share of the matrix parameters of a model's blocks that the sites have, from 0 to 1.

    Matrix parameters are the parameters with at least two dimensions inside the repeated blocks,
    such as linear layers, convolutions and the tensors of experts; not biases and normalizations.
    Convolutions between blocks count if they are among the sites.

    >>> from transformers import BertConfig, BertModel
    >>> from iwlora.sites import sites
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> model = BertModel(config)
    >>> coverage(model, sites(model)), coverage(model, sites(model, ["ffn_up", "ffn_down"]))
    (1.0, 0.5)
    """
    covered = {id(stored_weight(site)): site.size for site in sites}
    of_sites = {id(stored_weight(site)): site.size for site in all_sites(model) if site.block}
    sizes = of_sites | covered  # quantized weights have other shapes
    for block in blocks(unwrap(model)):
        for name, parameter in _pretrained_parameters(block):
            # T5 has its biases of relative positions in an embedding.
            is_bias = any("bias" in part for part in name.split(".")[-2:])
            is_norm = any("norm" in part.lower() for part in name.split(".")[-2:])
            if parameter.dim() > 1 and not (is_bias or is_norm):
                sizes.setdefault(id(parameter), parameter.numel())
    return sum(covered.values()) / sum(sizes.values())


def _pretrained_parameters(block: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a block, without those of adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [f"{n}." for n, m in block.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, parameter in block.named_parameters():
        inside = (name.removeprefix(prefix) for prefix in adapted if name.startswith(prefix))
        if all(part.startswith("base_layer.") for part in inside):
            yield name, parameter
