"""The configuration of a tiny model of any family, made from the fields of its default one.

Sizes are recognized by the names that transformers gives its fields, so a new family needs nothing
here as long as it uses the usual names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HEADS, HEAD_WIDTH, INNER, BLOCKS, POSITIONS = 4, 24, 64, 2, 64
WIDTH = HEADS * HEAD_WIDTH

# Names of integer fields -> the largest value of a tiny model; the first matching row is taken.
_LARGEST: dict[str, int] = {
    r"linear_num_key_heads|num_linear_key_value_heads|\w*n_?groups": HEADS // 2,
    r"(\w+_)?(num|n)_(\w+_)?heads?|(en|de)coder_attention_heads": HEADS,
    r"attention_head_dim": 2 * HEAD_WIDTH,
    r"\w*head_dim\w*|dim_head|d_kv|(\w+_)?d_head|attention_head_size|\w*headdim"
    r"|rotary_dim": HEAD_WIDTH,
    r"num_sparse_(en|de)coder_layers|first_k_dense_replace|moe_layer_start_index": 1,
    r"max_window_layers|num_kv_shared_layers|num_nextn_predict_layers": 0,
    r"num_(hidden_|encoder_|decoder_)?layers|n_layers?|(en|de)coder_layers|num_blocks|depth"
    r"|num_self_attends_per_block|[lxr]_layers|num_layers_per_stack|attn_layer_period": BLOCKS,
    r"(mamba_)?expand|attn_layer_offset|n_shared_experts": 1,
    r"attention_window": 16,
    r"attention_hidden_size": 2 * WIDTH,
    r"num_(local_)?experts|n_routed_experts|moe_num_experts": 4,
    r"num_experts_per_tok(en)?|moe_top_?k|moe_k|topk_group|n_group|num_expert_group": 2,
    r"(\w+_)?intermediate_size\w*|\w*ffn_(dim|hidden_size)|d_ff|dff|dim_ff|d_inner|n_inner"
    r"|feed_forward_size|mlp_dim|hidden_dim|router_hidden_size": INNER,
    r"\w*lora_rank|time_step_rank|adapter_rank|gated_norm_rank|mamba_dt_rank": HEAD_WIDTH,
    r"(\w+_)?(hidden_size|embedding_size|embed_dim|embedding_dim|emb_size|embd_dim)(_\w+)?"
    r"|d_model|d_latents|n_embd|emb_dim|dim|lru_width|word_embed_proj_dim|dim_model_base"
    r"|\w*bottleneck_size|mamba_d_ssm": WIDTH,
    r"\w*max_(\w+_)?position\w*|n_positions|n_ctx|context_length|max_seq_len"
    r"|\w+_group_vocab": POSITIONS,
}
_PATTERNS = {re.compile(names): largest for names, largest in _LARGEST.items()}
# Fields that are None by default where the class then fails to compute them.
_REQUIRED = re.compile(
    r"head_dim|num_experts_per_tok|n_(routed|shared)_experts|linear_num_\w+_heads"
)
_KEY_VALUE_HEADS = re.compile(
    r"num_(\w+_)?key_value_heads|num_kv_heads|kv_n_heads|num_query_groups"
)
_VOCABULARY = re.compile(r"(src_|tgt_|decoder_|unpadded_)?vocab_size(_per_layer_input)?")
_TOKEN = re.compile(r"(\w+)_token_(id|index)")


def tiny_config(config_class: Any, tokens: Mapping[str, int], vocabulary: int) -> Any:
    """The default configuration of a class with small sizes.

    Args:
        config_class: A class of configurations.
        tokens: {``pad``, ``bos``, ``eos``, ...: the id of the tokenizer's token}.
        vocabulary: The number of embeddings, which may be larger than that of tokens. Other
            special tokens, such as an image's, get the last one.

    Returns:
        A configuration of the class.
    """
    return config_class(**_tiny_fields(config_class(), tokens, vocabulary))


def _tiny_fields(default: Any, tokens: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    """The fields of a tiny configuration that differ from a default one."""
    from transformers import PretrainedConfig

    defaults = vars(default)
    fields: dict[str, Any] = {}
    for name, value in defaults.items():
        token = _TOKEN.fullmatch(name)
        if isinstance(value, PretrainedConfig):
            fields[name] = {**value.to_dict(), **_tiny_fields(value, tokens, vocabulary)}
        elif token and token[1] in tokens:
            fields[name] = tokens[token[1]]
        elif token and isinstance(value, int) and value >= vocabulary:
            fields[name] = vocabulary - 1
        elif _VOCABULARY.fullmatch(name):
            fields[name] = vocabulary
        elif _KEY_VALUE_HEADS.fullmatch(name):
            grouped = value is not None and value < defaults.get("num_attention_heads", 0)
            fields[name] = min(value, HEADS // 2) if grouped else HEADS
        elif _is_count(value) or (value is None and _REQUIRED.fullmatch(name)):
            largest = _largest(name)
            if largest is not None:
                single = name == "num_experts" and value == 1  # a choice of one has no gradient
                fields[name] = largest if value is None or single else min(value, largest)
    if getattr(default, "is_encoder_decoder", False):
        fields["decoder_start_token_id"] = tokens["bos"]
    if defaults.get("_heterogeneity_spec") is not None:
        fields["per_layer_config"] = {}
    if defaults.get("attention_hidden_size", 0) == defaults.get("hidden_size"):
        fields["attention_hidden_size"] = WIDTH
    if "num_layers_per_stack" in defaults:  # from which it computes the other
        fields.pop("num_hidden_layers")
    if "mamba_d_head" in fields:  # by default the heads may be many and narrow
        fields["mamba_d_head"] = HEAD_WIDTH
    parts = [defaults.get(f"qk_{part}_head_dim") for part in ("nope", "rope")]
    for name in [name for name in fields if name.endswith("head_dim")]:
        if None not in parts and defaults[name] == sum(parts):
            fields[name] = 2 * HEAD_WIDTH
    return fields | _shorter_lists(default)


def _largest(name: str) -> int | None:
    """The largest value of the field in a tiny model; None for a field that is no size."""
    return next((size for names, size in _PATTERNS.items() if names.fullmatch(name)), None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _shorter_lists(default: Any) -> dict[str, Any]:
    """Lists with an entry for each block, such as ``layer_types``, cut to blocks that have all
    their different entries; and the number of these blocks."""
    count = default.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    blocks = vars(default).get(count)
    lists = {
        name: list(value)
        for name, value in vars(default).items()
        if isinstance(value, (list, tuple)) and len(value) == blocks
    }
    for name, values in lists.items():
        if set(values) == {"linear_attention"}:  # a hybrid whose configuration lists the others
            lists[name] = ["linear_attention", "full_attention", *values[2:]]
        elif (heads := _largest(name.removesuffix("_per_layer"))) is not None:
            lists[name] = [min(value, heads) for value in values]
    if "attn_layer_indices" in vars(default):
        return {"attn_layer_indices": [1]}
    if "block_types" in vars(default):  # repeated until there are enough
        return {"block_types": list(dict.fromkeys(default.block_types))}
    chosen = {values.index(value) for values in lists.values() for value in values}
    if not chosen:
        return {}
    others = [index for index in range(blocks or 0) if index not in chosen]
    kept = sorted({*chosen, *others[: max(0, BLOCKS - len(chosen))]})
    return {name: [values[k] for k in kept] for name, values in lists.items()} | {count: len(kept)}
