"""Tiny random language models with mixtures of experts, one for each layout of their weights."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

EXPERTS = 4
_SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
}
_LOCAL = {"num_local_experts": EXPERTS}
_LAYERS = {"layer_types": ["full_attention", "full_attention"]}
_DEEPSEEK = {
    "n_routed_experts": EXPERTS,
    "moe_intermediate_size": 12,
    "n_group": 2,
    "topk_group": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank", "qk_nope_head_dim"], 8),
    **dict.fromkeys(["qk_rope_head_dim", "v_head_dim"], 8),
}
_QWEN = {"num_experts": EXPERTS, "moe_intermediate_size": 12}
_FIELDS: dict[str, dict[str, Any]] = {
    "mixtral": _LOCAL,
    "qwen3_moe": {**_QWEN, "head_dim": 8},
    "olmoe": {"num_experts": EXPERTS},
    "granitemoe": _LOCAL,
    "gpt_oss": {**_LOCAL, **_LAYERS, "head_dim": 8, "rope_parameters": {"rope_type": "default"}},
    "deepseek_v3": _DEEPSEEK,
    "qwen2_moe": {**_QWEN, "shared_expert_intermediate_size": 12},
    "llama4_text": {
        **_LOCAL,
        **_LAYERS,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 24,
        "interleave_moe_layer_step": 1,
        "head_dim": 8,
        "no_rope_layers": [1, 1],
    },
    "phimoe": _LOCAL,
    "jetmoe": {**_LOCAL, "num_key_value_heads": 1, "kv_channels": 8},
}
MODELS = list(_FIELDS)
# In the first versions of transformers 5 the block reads the bias of these routers, so nothing may
# wrap them and they are no sites.
WITHOUT_ROUTERS = ["deepseek_v3"] if hasattr(DeepseekV3MoE, "route_tokens_to_experts") else []


def expert_model(name: str) -> Any:
    """A model with two blocks of width 16; every weight is drawn at random."""
    return copy.deepcopy(_model(name))


@cache
def _model(name: str) -> Any:
    sizes = {k: v for k, v in _SIZES.items() if name != "jetmoe" or k != "num_attention_heads"}
    config = AutoConfig.for_model(name, **{**sizes, **_FIELDS[name]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.3)
    return model.train(False)


def expert_batches(count: int = 2) -> list[dict[str, Tensor]]:
    """Batches of two rows of six tokens, each with itself as labels."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 32, (count, 2, 6), generator=random)
    return [
        {"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in ids
    ]
