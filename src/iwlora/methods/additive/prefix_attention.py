"""Prefix tuning of single layers: trained keys and values before those of self-attention.

An attention function that transformers calls by its registered name puts them there, so they reach
every model whose attention calls these functions, encoders without ``past_key_values`` among them.
Positions of the text do not change.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.sites import Site, unwrap

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "iwlora_prefix"
"""The name of the attention function in transformers."""
_CALLED = "ALL_ATTENTION_FUNCTIONS"  # in the code of attention that calls registered functions


def prefix_places(model: nn.Module, sites: Sequence[Site]) -> Iterator[tuple[nn.Module, int]]:
    """(module, width of its keys) of the self-attention of each block.

    Args:
        model: the model.
        sites: all sites of these blocks.

    Raises:
        IwloraError: a block has no self-attention that calls the attention functions of
            transformers, one that this file does not know, or one that PyTorch's function does not
            compute, such as that of gpt-oss.
    """
    by_block: dict[str, dict[str, Site]] = {site.block: {} for site in sites}
    for site in sites:
        by_block[site.block][site.kind.removeprefix("decoder_")] = site
    for block, kinds in by_block.items():
        width = _width(kinds)
        first = kinds.get("query") or kinds.get("query_key_value")
        if first is None or not width:
            raise IwloraError(
                f"prefix adds keys and values to self-attention, and {block} of "
                f"{type(unwrap(model)).__name__} has none whose keys and values it knows; leave "
                "prefix out"
            )
        module = unwrap(model).get_submodule(first.name.rpartition(".")[0])
        forward = inspect.unwrap(type(module).forward)
        if _CALLED not in forward.__code__.co_names:
            raise IwloraError(
                f"prefix adds keys and values by an attention function of transformers, and "
                f"{type(module).__name__} of {type(unwrap(model)).__name__} does not call these "
                "functions; leave prefix out"
            )
        if not _is_computed_by_pytorch(unwrap(model), first.name):
            raise IwloraError(
                f"prefix adds keys and values by PyTorch's attention function (sdpa), and "
                f"transformers does not support this function for {type(unwrap(model)).__name__}; "
                "leave prefix out"
            )
        yield module, width


def _is_computed_by_pytorch(model: nn.Module, name: str) -> bool:
    """Whether PyTorch's function computes the attention of a site.

    It would leave out learned sinks, for example, without an error. transformers knows, by the
    model that the site is in, which may be a part of another one; its earlier versions do not know
    it of the limit of Gemma 2's scores.
    """
    path = name.split(".")
    if getattr(model.get_submodule(".".join(path[:-1])), "attn_logit_softcapping", None):
        return False
    holders: list[Any] = [model.get_submodule(".".join(path[:n])) for n in range(len(path))]
    declared = [h._supports_sdpa for h in holders if hasattr(h, "_supports_sdpa")]
    return bool(declared and declared[-1])


def _width(kinds: dict[str, Site]) -> int:
    """The width of the keys of all heads; 0 where it is not known, or not that of the values."""
    if "key" in kinds:
        key, value = kinds["key"], kinds.get("value")
        return key.d_out if value is None or value.d_out == key.d_out else 0
    together, output = kinds.get("query_key_value"), kinds.get("attention_output")
    if together is None or output is None:
        return 0
    return (together.d_out - output.d_in) // 2  # queries are as wide as the attention's output


def insert_prefixes(model: Any, sites: Sequence[Site], tokens: int) -> list[nn.Parameter]:
    """Add ``tokens`` keys and values to the self-attention of each block.

    Each is the parameter ``prefix`` of shape (2, tokens, width) of the attention module: keys, then
    values, drawn from the standard normal distribution as in PEFT's prefix tuning.

    Args:
        model: a model of transformers.
        sites: all sites of these blocks.
        tokens: the number of keys of each.

    Returns:
        The new parameters.
    """
    import torch
    from torch import nn
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, prefix_attention)
    AttentionMaskInterface.register(NAME, _explicit_mask)
    places = list(prefix_places(model, sites))
    unwrap(model).set_attn_implementation(NAME)  # type: ignore[operator]
    new = []
    for module, width in places:
        like = next(module.parameters())
        dtype = torch.promote_types(like.dtype, torch.float32)  # half precision trains badly
        values = torch.randn(2, tokens, width).to(like.device, dtype)
        module.register_parameter("prefix", nn.Parameter(values))
        new.append(module.get_parameter("prefix"))
    return new


def prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q [P_k; K]ᵀ s + [0; b + m]) [P_v; V], with the mask m and the position bias b.

    Every query attends to the whole prefix. Without a prefix in the module it is the attention that
    transformers computes with PyTorch's function. The mask is explicit, because a causal one that
    is only declared would count the prefix among the keys of the text, and leave out the last ones.

    Args:
        module: the attention module, with a ``prefix`` or without.
        query: (rows, heads, queries, d).
        key: (rows, key heads, keys, d).
        value: (rows, key heads, keys, d).
        attention_mask: (rows, 1 or heads, queries, keys): true where a query attends to a key, or
            the numbers that are added to the scores.
        is_causal: whether no query attends to later keys, if there is no mask; None: what the
            module declares.
        position_bias: (1 or rows, heads, queries, keys), added to the scores.
        options: the dropout, the scaling s and others, passed on.

    Returns:
        (rows, queries, heads, d), and None in the place of the shares.
    """
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    prefix = getattr(module, "prefix", None)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    mask = attention_mask
    if mask is None and causal and query.shape[2] > 1:
        mask = query.new_ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()[None, None]
    if position_bias is not None:
        bias = position_bias.to(query.dtype)
        lowest = torch.finfo(bias.dtype).min
        if mask is None:
            mask = bias
        else:
            mask = torch.where(mask, bias, lowest) if mask.dtype is torch.bool else bias + mask
    if prefix is not None:
        _, heads, _, d = key.shape
        before = prefix.to(key.dtype).unflatten(-1, (heads, d)).transpose(1, 2)  # (2, heads, p, d)
        before = before[:, None].expand(-1, key.shape[0], -1, -1, -1)
        key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
        if mask is not None:
            open_ = mask.new_full((*mask.shape[:-1], prefix.shape[1]), mask.dtype is torch.bool)
            mask = torch.cat([open_, mask], -1)
    attended: tuple[Tensor, Tensor | None]
    attended = attend(module, query, key, value, mask, is_causal=False, **options)
    return attended


def _explicit_mask(*arguments: Any, **options: Any) -> Any:
    """The mask as PyTorch's attention gets it, also where it could be left out."""
    from transformers.masking_utils import sdpa_mask

    options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*arguments, **options)
