"""Finding the sites of a model: the weight matrices that can be adapted.

``iwlora.sites`` and ``iwlora.mixture_of_experts`` alone know model families. A *site* is one weight
matrix inside one of the model's repeated blocks, or the stacked matrices of all experts of a block;
embeddings of tokens, poolers and task heads are not sites. 2-D convolutions are sites inside and
outside of blocks, for those who name them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, unknown
from iwlora.head import head_modules, in_modules
from iwlora.inputs.limits import full_matches
from iwlora.mixture_of_experts import expert_weights, is_transposed, routers
from iwlora.sites.blocks import block_depth, is_stage, unwrap
from iwlora.sites.site import Site, is_convolution, is_linear

if TYPE_CHECKING:
    from torch import nn

# The kind of a matrix -> the ends of its path inside a block, in BERT and DeBERTa types, in T5, in
# BART and Llama types, in Phi-3, in GPT-2, and in vision models: ViT types and ConvNeXt. The first
# kind that matches is taken.
_KINDS = {
    "query": r"attention\.self\.query(_proj)?|SelfAttention\.q|(self_)?attn\.q_proj"
    r"|(?<!attn\.)attention\.(q_proj|attention\.query)",
    "key": r"attention\.self\.key(_proj)?|SelfAttention\.k|(self_)?attn\.k_proj"
    r"|(?<!attn\.)attention\.(k_proj|attention\.key)",
    "value": r"attention\.self\.value(_proj)?|SelfAttention\.v|(self_)?attn\.v_proj"
    r"|(?<!attn\.)attention\.(v_proj|attention\.value)",
    "position_key": r"attention\.self\.(pos_key_proj|pos_proj)",
    "position_query": r"attention\.self\.(pos_query_proj|pos_q_proj)",
    "query_key_value": r"attn\.c_attn|self_attn\.qkv_proj",
    "attention_output": r"attention\.output\.dense|SelfAttention\.o|"
    r"(self_)?attn\.(o_proj|out_proj)|attn\.c_proj|(?<!attn\.)attention\.o_proj",
    "cross_query": r"EncDecAttention\.q|encoder_attn\.q_proj|crossattention\.q_attn",
    "cross_key": r"EncDecAttention\.k|encoder_attn\.k_proj",
    "cross_value": r"EncDecAttention\.v|encoder_attn\.v_proj",
    "cross_key_value": r"crossattention\.c_attn",
    "cross_output": r"EncDecAttention\.o|encoder_attn\.out_proj|crossattention\.c_proj",
    "ffn_gate_up": r"mlp\.gate_up_proj",
    "ffn_gate": r"DenseReluDense\.wi_0|mlp\.gate_proj",
    "ffn_up": r"intermediate\.dense|DenseReluDense\.wi(_1)?|fc1|mlp\.(up_proj|c_fc)|pwconv1",
    "ffn_down": r"output\.dense|DenseReluDense\.wo|fc2|mlp\.(down_proj|c_proj)|pwconv2",
    "expert_gate_up": r"experts\.gate_up_proj",
    "expert_gate": r"experts\.gate_proj",
    "expert_up": r"experts\.up_proj",
    "expert_down": r"experts\.down_proj",
}
_KIND_PATTERNS = {kind: re.compile(rf"(.*\.)?({path})") for kind, path in _KINDS.items()}
# The same for 2-D convolutions: before the blocks, between the stages of ConvNeXt, in its blocks.
_CONVOLUTION_PATTERNS = {
    "patch_embedding": re.compile(r"(.*\.)?patch_embeddings(\.projection)?"),
    "downsampling": re.compile(r"(.*\.)?downsampling_layer\.\d+"),
    "depthwise": re.compile(r"(.*\.)?dwconv"),
}
_MAMBA_TYPES = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")


def sites(
    model: nn.Module, targets: str | Sequence[str] = "all", exclude: str | Sequence[str] = ()
) -> list[Site]:
    """List the sites of a model, in the order of its modules.

    Args:
        model: a transformers model, or any model with ``torch.nn.ModuleList`` blocks; adapters
            may already be attached.
        targets: ``"all"``: all but convolutions; ``"all-linear"``: all linear layers, without the
            parameters of experts and of routers that are none; or a list of kinds of matrices
            (``["query", "value"]``), of names, and of the last parts of names (``["q_proj",
            "mlp.up_proj"]``); or one of these; or a regular expression that matches the whole
            name, as in ``peft.LoraConfig``. A list may have ``"all"`` and ``"all-linear"`` beside
            others, such as ``["all", "patch_embedding"]``.
        exclude: the sites to leave out, in the same forms.

    Raises:
        IwloraError: a target matches nothing, everything is excluded, or the model has no linear
            layer in a block.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...                     intermediate_size=16, vocab_size=10)
        >>> chosen = sites(BertModel(config), targets=["query", "ffn_up"])
        >>> [(site.kind, site.d_in, site.d_out) for site in chosen]
        [('query', 8, 8), ('ffn_up', 8, 16)]
        >>> len(sites(BertModel(config), targets=".*attention.*", exclude=["self.value"]))
        3
    """
    every_site = list(all_sites(model))
    only_convolutions = all(site.is_convolution for site in every_site)
    if not every_site or (only_convolutions and targets in ("all", "all-linear")):
        raise IwloraError(
            f"{type(unwrap(model)).__name__} has no linear layer inside a repeated block "
            "(a torch.nn.ModuleList), so there is nothing to measure or adapt"
        )
    chosen = _matching(every_site, targets, "target")
    excluded = {site.name for site in _matching(every_site, exclude, "exclude")}
    remaining = [site for site in chosen if site.name not in excluded]
    if not remaining:
        raise IwloraError(f"exclude={exclude} leaves none of the {len(chosen)} matrices to adapt")
    return remaining


def _matching(every_site: Sequence[Site], patterns: str | Sequence[str], option: str) -> list[Site]:
    """The sites that a list of kinds, names and ends of names chooses, or a regular expression."""
    all_of = {
        "all": {site.name for site in every_site if not site.is_convolution},
        "all-linear": {site.name for site in every_site if is_linear(site.layer)},
    }
    chosen: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = all_of.get(pattern, set()) if option == "target" else set()
        names = names or {s.name for s in every_site if pattern in (s.kind, s.name)}
        names = names or {s.name for s in every_site if s.name.endswith(f".{pattern}")}
        if not names and isinstance(patterns, str):
            names = full_matches(pattern, [site.name for site in every_site])
        if not names and any(pattern.startswith(f"{s.name}.") for s in every_site if s.experts > 1):
            raise IwloraError(
                f"the {option} {pattern} is a single expert, and PEFT has one rank for all experts "
                f"of a block; take {pattern.rpartition('.')[0]}"
            )
        if not names:
            kinds = dict.fromkeys(site.kind for site in every_site)
            raise unknown(option, pattern, ["all", *kinds] if option == "target" else kinds)
        chosen |= names
    return [site for site in every_site if site.name in chosen]


def abbreviate_names(names: Collection[str]) -> str:
    """Names of modules for a message: those that differ in numbers only become one pattern.

    >>> abbreviate_names(["layers.0.q_proj", "layers.1.q_proj", "norm"])
    'layers.*.q_proj (2), norm'
    """
    patterns = Counter(re.sub(r"\b\d+\b", "*", name) for name in names)
    single = {re.sub(r"\b\d+\b", "*", name): name for name in names}
    return ", ".join(
        f"{pattern} ({count})" if count > 1 else single[pattern]
        for pattern, count in sorted(patterns.items())
    )


def used_by_kernels(model: nn.Module, site: Site) -> bool:
    """Whether the CUDA kernels of the model's type use the site's weight without its layer.

    PEFT refuses adapters on these layers, since their effect would depend on the kernels installed.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    return model_type in _MAMBA_TYPES and site.name.endswith(".out_proj")


def all_sites(model: nn.Module) -> Iterator[Site]:
    """Every site of a model, convolutions too, in the order of its modules."""
    plain = unwrap(model)
    encoder_decoder = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    choosing = routers(plain)
    renamed = _renamed_by_peft(plain) if choosing else frozenset()
    seen: set[nn.Module] = set()  # a reused module is one site, under its first name
    head = head_modules(plain)
    following = 0  # the depth of the block after the modules so far
    for path, start, layer in _modules_with_weights(plain, choosing):
        if layer in seen or in_modules(".".join(path), head):
            continue
        seen.add(layer)
        if is_convolution(layer):
            yield _convolution(plain, path, start, layer, following)
            continue
        as_parameter = layer in choosing or ".".join(path) in renamed
        for parameter in _weights(layer, as_parameter):
            whole = path if is_linear(layer) else (*path, str(parameter))
            inside = ".".join(whole[start:])
            matching = (kind for kind, end in _KIND_PATTERNS.items() if end.fullmatch(inside))
            kind = "router" if layer in choosing else next(matching, inside)
            if encoder_decoder and "decoder" in path:
                kind = f"decoder_{kind}"
            experts, d_in, d_out = _shape(layer, parameter)
            depth, block = block_depth(plain, path[:start]), ".".join(path[:start])
            name, following = ".".join(whole), depth + 1
            yield Site(name, layer, kind, d_in, d_out, depth, block, parameter, experts)


def _convolution(
    plain: nn.Module, path: tuple[str, ...], start: int | None, layer: Any, following: int
) -> Site:
    """The site of a convolution; ``following`` is the depth of the next block."""
    name, rows = ".".join(path), len(layer.weight)
    matching = (kind for kind, end in _CONVOLUTION_PATTERNS.items() if end.fullmatch(name))
    size = layer.weight[0].numel()
    if start is None or start == len(path):
        return Site(name, layer, next(matching, name), size, rows, following)
    depth, block = block_depth(plain, path[:start]), ".".join(path[:start])
    kind = next(matching, ".".join(path[start:]))
    return Site(name, layer, kind, size, rows, depth, block)


def _modules_with_weights(
    module: nn.Module,
    choosing: Set[nn.Module],
    path: tuple[str, ...] = (),
    block: int | None = None,
) -> Iterator[tuple[tuple[str, ...], int | None, nn.Module]]:
    """Yield (path, length of the block's path, module); of an adapted module, its base.

    Convolutions outside of blocks have the length None, or that of their own path.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    for name, child in module.named_children():
        child_path = (*path, name)
        in_list = isinstance(module, nn.ModuleList) and not is_stage(child)
        starts_block = block is None and in_list
        start = len(child_path) if starts_block else block
        base: Any = child.get_base_layer() if isinstance(child, BaseTunerLayer) else child
        in_block = is_linear(base) or base in choosing or bool(expert_weights(base))
        if is_convolution(base) or (start is not None and in_block):
            yield child_path, start, base
        elif not isinstance(child, BaseTunerLayer):
            yield from _modules_with_weights(child, choosing, child_path, start)


def _weights(layer: nn.Module, as_parameter: bool) -> Sequence[str | None]:
    """Names of the weights of a module that are sites; None for that of a layer that is called."""
    return expert_weights(layer) or ["weight" if as_parameter else None]


def _renamed_by_peft(model: nn.Module) -> Set[str]:
    """Names of the linear layers that PEFT takes for experts in the naming of transformers 4.

    As target modules they would become target parameters of all experts.
    """
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # PEFT before 0.19 renames nothing
        return frozenset()
    names = {name for name, layer in model.named_modules() if is_linear(layer)}
    # PEFT accepts the projections of a gate only together.
    together = {f"iwlora.{name}" for name in ("w1", "w3", "gate_proj", "up_proj")}
    config = LoraConfig(target_modules=[*names, *together])
    convert_peft_config_for_transformers(config, model, None)
    return names - set(config.target_modules or [])


def _shape(layer: Any, parameter: str | None) -> tuple[int, int, int]:
    """(experts, d_in, d_out) from the layer's fields: quantized weights have another shape."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return 1, layer.in_features, layer.out_features
    if parameter is None:
        return 1, layer.nx, layer.nf
    *experts, rows, columns = layer.get_parameter(parameter).shape
    if experts and is_transposed(layer):
        return experts[0], rows, columns
    return experts[0] if experts else 1, columns, rows
