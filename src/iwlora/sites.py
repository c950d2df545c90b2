"""Where a model can be adapted: its linear layers, named alike across architectures.

The only module that knows model families. A *site* is one weight matrix inside one of the
model's repeated blocks; embeddings, poolers and task heads are not sites.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.errors import IwloraError, unknown

# The end of a module's path inside its block -> the kind of matrix it is.
_KINDS = (
    # BERT, RoBERTa, ELECTRA, MiniLM, DeBERTa
    (r"attention\.self\.(?:query|query_proj)", "query"),
    (r"attention\.self\.(?:key|key_proj)", "key"),
    (r"attention\.self\.(?:value|value_proj)", "value"),
    (r"attention\.self\.(?:pos_key_proj|pos_proj)", "position_key"),
    (r"attention\.self\.(?:pos_query_proj|pos_q_proj)", "position_query"),
    (r"attention\.output\.dense", "attention_output"),
    (r"intermediate\.dense", "ffn_up"),
    (r"output\.dense", "ffn_down"),
    # T5
    (r"SelfAttention\.q", "query"),
    (r"SelfAttention\.k", "key"),
    (r"SelfAttention\.v", "value"),
    (r"SelfAttention\.o", "attention_output"),
    (r"EncDecAttention\.q", "cross_query"),
    (r"EncDecAttention\.k", "cross_key"),
    (r"EncDecAttention\.v", "cross_value"),
    (r"EncDecAttention\.o", "cross_output"),
    (r"DenseReluDense\.wi_0", "ffn_gate"),
    (r"DenseReluDense\.wi(?:_1)?", "ffn_up"),
    (r"DenseReluDense\.wo", "ffn_down"),
    # BART, Llama and their relatives
    (r"(?:self_attn|attn)\.q_proj", "query"),
    (r"(?:self_attn|attn)\.k_proj", "key"),
    (r"(?:self_attn|attn)\.v_proj", "value"),
    (r"(?:self_attn|attn)\.(?:o_proj|out_proj)", "attention_output"),
    (r"encoder_attn\.q_proj", "cross_query"),
    (r"encoder_attn\.k_proj", "cross_key"),
    (r"encoder_attn\.v_proj", "cross_value"),
    (r"encoder_attn\.out_proj", "cross_output"),
    (r"mlp\.gate_proj", "ffn_gate"),
    (r"fc1|mlp\.up_proj", "ffn_up"),
    (r"fc2|mlp\.down_proj", "ffn_down"),
    # GPT-2
    (r"crossattention\.q_attn", "cross_query"),
    (r"crossattention\.c_attn", "cross_key_value"),
    (r"crossattention\.c_proj", "cross_output"),
    (r"attn\.c_attn", "query_key_value"),
    (r"attn\.c_proj", "attention_output"),
    (r"mlp\.c_fc", "ffn_up"),
    (r"mlp\.c_proj", "ffn_down"),
)
# Heads of models that keep their stacks beside the head, not in a backbone (T5).
_BARE_HEADS = ("qa_outputs",)
_KIND_PATTERNS = tuple((re.compile(rf"(?:.*\.)?(?:{path})"), kind) for path, kind in _KINDS)
# What normalises before the feed-forward: in a part of T5's blocks, in GPT-2's and Llama's.
_NORMS_BEFORE = ("layer_norm", "ln_2", "post_attention_layernorm")


@dataclass(frozen=True)
class Site:
    """One adaptable weight matrix W of shape (d_out, d_in), computing x Wᵀ.

    ``name`` is the module's path in the model as it was loaded, before any adapter wrapped it;
    ``layer`` the module itself; ``kind`` its part in the block (``query``, ``ffn_up``, …);
    ``depth`` the index of the block, from 0.
    """

    name: str
    layer: nn.Module
    kind: str
    d_in: int
    d_out: int
    depth: int


def sites(model: nn.Module, targets: str | Sequence[str] = "all") -> list[Site]:
    """List the adaptable sites of a model, in the order of its modules.

    ``targets`` is ``"all"``, or kinds (``["query", "value"]``), or site names. Raises
    ``IwloraError`` when a target matches nothing or the model has no linear layer in a block.

    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> found = sites(BertModel(config), targets=["query", "ffn_up"])
    >>> [(site.kind, site.d_in, site.d_out) for site in found]
    [('query', 8, 8), ('ffn_up', 8, 16)]
    """
    found = list(_find(model))
    if not found:
        raise IwloraError(
            f"{type(_unwrap(model)).__name__} has no linear layer inside a repeated block "
            "(a torch.nn.ModuleList), so there is nothing to measure or adapt"
        )
    if targets == "all":
        return found
    wanted = [targets] if isinstance(targets, str) else list(targets)
    kinds = list(dict.fromkeys(site.kind for site in found))
    names = {site.name for site in found}
    for target in wanted:
        if target not in kinds and target not in names:
            raise unknown("target", target, ["all", *kinds])
    return [site for site in found if site.kind in wanted or site.name in wanted]


def head_modules(model: nn.Module) -> list[str]:
    """Names of the task head: the children with parameters outside the pretrained backbone.

    These are new for each task and are trained by every method. A bare backbone has none, and
    neither has a language model: what maps its states to words is pretrained.
    """
    backbone = getattr(model, "base_model_prefix", "")
    if not backbone or not hasattr(model, backbone):
        return [name for name in _BARE_HEADS if hasattr(model, name)]
    words = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, child in model.named_children()
        if name != backbone and child is not words and any(True for _ in child.parameters())
    ]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model, in order: what its outermost lists of modules hold.

    >>> from transformers import BertConfig, BertModel
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    ...                     intermediate_size=16, vocab_size=10)
    >>> [type(block).__name__ for block in blocks(BertModel(config))]
    ['BertLayer', 'BertLayer']
    """
    if isinstance(model, nn.ModuleList):
        return list(model)
    return [block for child in model.children() for block in blocks(child)]


def end_of_block(model: nn.Module, down: Site) -> tuple[nn.Module, bool]:
    """The module that ends the block of a feed-forward, whose last matrix is the site ``down``.

    With True where it normalises the sum x + FFN(x) of input and output (BERT types, BART), with
    False where its output is that sum (T5, GPT-2, Llama types). Raises ``IwloraError`` for a
    block of another kind.
    """
    path = down.name.split(".")
    around: Any = _unwrap(model).get_submodule(".".join(path[:-1]))
    if hasattr(around, "LayerNorm"):
        return around.LayerNorm, True
    if type(around).__name__.startswith("Bart"):
        return around.final_layer_norm, True
    block = _unwrap(model).get_submodule(".".join(path[:-2]))
    if any(hasattr(block, name) for name in _NORMS_BEFORE):
        return block, False
    raise IwloraError(
        f"{type(model).__name__} has blocks of which it is not known how they end ({down.name})"
    )


@torch.no_grad()
def dense_weight(site: Site) -> Tensor:
    """The site's weight as a dense (d_out, d_in) tensor, whatever stores it.

    A packed or offloaded weight is read off the layer's own outputs for the unit vectors, so it
    is the one that the model computes with, to the precision of those outputs.

    >>> dense_weight(Site("w", nn.Linear(3, 2), "w", 3, 2, 0)).shape
    torch.Size([2, 3])
    """
    layer: Any = site.layer
    weight = layer.weight
    plain = type(weight) is nn.Parameter and weight.is_floating_point() and not weight.is_meta
    if plain and weight.numel() == site.d_in * site.d_out:
        dense: Tensor = weight.detach() if isinstance(layer, nn.Linear) else weight.detach().mT
        return dense
    like = next((p for p in (layer.bias, weight) if p is not None and p.is_floating_point()), None)
    dtype = torch.float32 if like is None else like.dtype
    device = torch.device("cpu") if weight.is_meta else weight.device
    basis = torch.eye(site.d_in, dtype=dtype, device=device)
    with unpacked(layer):
        outputs: Tensor = layer(basis) - layer(torch.zeros_like(basis[:1]))
    return outputs.mT


@contextmanager
def unpacked(layer: nn.Module) -> Iterator[None]:
    """Keep a 4-bit weight in the form that has a backward pass.

    Where the CPU has bfloat16 instructions, bitsandbytes packs 4-bit weights anew for inference,
    in place and outside training mode. Writing the state of the layer undoes that.
    """
    mode = layer.training
    if getattr(layer, "support_avx512bf16_for_cpu", False):
        if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
            layer.state_dict()
        layer.training = True  # changes nothing else in this layer
    try:
        yield
    finally:
        layer.training = mode


def _find(model: nn.Module) -> Iterator[Site]:
    encoder_decoder = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    seen: set[nn.Module] = set()  # a module that is reused is one site, under its first name
    for name, depth, inside, layer in _linear_layers(_unwrap(model)):
        if layer in seen:
            continue
        seen.add(layer)
        kind = next((kind for pattern, kind in _KIND_PATTERNS if pattern.fullmatch(inside)), inside)
        if encoder_decoder and "decoder" in name.split("."):
            kind = f"decoder_{kind}"
        d_in, d_out = _shape(layer)
        yield Site(name, layer, kind, d_in, d_out, depth)


def _unwrap(model: nn.Module) -> nn.Module:
    """The model as it was loaded, without the shell that PEFT puts around it."""
    from peft import PeftModel

    base: nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


def _linear_layers(
    module: nn.Module, path: tuple[str, ...] = (), block: int | None = None
) -> Iterator[tuple[str, int, str, nn.Module]]:
    """Yield (name, depth, path inside the block, layer); an adapted layer stands for its base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, child in module.named_children():
        here = (*path, name)
        starts_block = block is None and isinstance(module, nn.ModuleList)
        start = len(here) if starts_block else block
        base: Any = child.get_base_layer() if isinstance(child, BaseTunerLayer) else child
        if start is not None and _is_linear(base):
            yield ".".join(here), int(here[start - 1]), ".".join(here[start:]), base
        elif not isinstance(child, BaseTunerLayer):
            yield from _linear_layers(child, here, start)


def _is_linear(layer: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, (nn.Linear, Conv1D))


def _shape(layer: Any) -> tuple[int, int]:
    """(d_in, d_out) from the layer's own fields: packed weights have another shape."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.nx, layer.nf
