"""Tiny random models, one for each architecture that the methods are tested on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.methods.contract import Method
from iwlora.sites import sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDTH, INNER = 16, 24


def tiny_config(architecture: str, vocab_size: int = 64, blocks: int = 2) -> Any:
    """The configuration of a model with a few blocks of width 16, without dropout."""
    from transformers import AutoConfig

    block_fields, fields = _FIELDS[architecture]
    counts = dict.fromkeys(block_fields, blocks)
    return AutoConfig.for_model(architecture, vocab_size=vocab_size, **counts, **fields)


def tiny_model(
    architecture: str, labels: int = 3, head_seed: int = 0, blocks: int = 2
) -> PreTrainedModel:
    """A classifier with random weights. ``head_seed`` changes the weights of the head only.

    >>> tiny_model("bert").config.num_labels
    3
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(architecture, blocks=blocks)
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        torch.manual_seed(head_seed)
        for name in head_modules(model):
            for parameter in model.get_submodule(name).parameters():
                torch.nn.init.normal_(parameter, std=0.1)
    model.train(False)
    return model


def refusals(method: Method) -> dict[str, str | None]:
    """{architecture: why the method does not support it, or None}, by ``check_model``."""
    messages: dict[str, str | None] = {}
    for architecture in ARCHITECTURES:
        model = _unchanged_model(architecture)
        try:
            method.check_model(model, sites(model))
        except IwloraError as refusal:
            messages[architecture] = str(refusal)
        else:
            messages[architecture] = None
    return messages


@cache
def _unchanged_model(architecture: str) -> PreTrainedModel:
    return tiny_model(architecture)  # check_model does not change it


_SIZES = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": INNER}
_POSITIONS = {"max_position_embeddings": 64, "pad_token_id": 0}
_ENCODER = _SIZES | _POSITIONS | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# transformers' type of a model -> the fields with its number of blocks, the other fields
_FIELDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "bert": (["num_hidden_layers"], _ENCODER),
    "roberta": (["num_hidden_layers"], _ENCODER),
    "electra": (["num_hidden_layers"], _ENCODER | {"embedding_size": 8}),
    "deberta-v2": (
        ["num_hidden_layers"],
        _ENCODER
        | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
        | {"share_att_key": True, "norm_rel_ebd": "layer_norm"}
        | {"pooler_dropout": 0.0, "pooler_hidden_size": WIDTH},
    ),
    "t5": (
        ["num_layers"],
        {"d_model": WIDTH, "d_kv": 8, "d_ff": INNER, "num_heads": 2, "dropout_rate": 0.0}
        | {"pad_token_id": 0, "decoder_start_token_id": 0},
    ),
    "bart": (
        ["encoder_layers", "decoder_layers"],
        {"d_model": WIDTH, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        | {"encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER}
        | {"max_position_embeddings": 64, "dropout": 0.0},
    ),
    "gpt2": (
        ["n_layer"],
        {"n_embd": WIDTH, "n_head": 2, "n_positions": 64}
        | {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        | {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None},
    ),
    "llama": (["num_hidden_layers"], _SIZES | _POSITIONS),
}
ARCHITECTURES = tuple(_FIELDS)
