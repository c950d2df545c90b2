"""Tiny random models, one for each architecture that the methods are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.methods.contract import Method
from iwlora.sites import sites

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WIDTH, INNER = 16, 24
IMAGE_SIZE = 16
"""Width and height of the images that tiny models read, in pixels."""


def tiny_config(architecture: str, vocab_size: int = 64, blocks: int = 2) -> Any:
    """The configuration of a model with a few blocks of width 16, without dropout."""
    from transformers import AutoConfig

    if architecture in _IMAGE_FIELDS:
        depths = [1, blocks - 1] if blocks > 1 else [1]
        stages: dict[str, Any] = {
            "swin": {"depths": depths, "num_heads": [2] * len(depths)},
            "convnext": {
                "depths": depths,
                "num_stages": len(depths),
                "hidden_sizes": [8, WIDTH][-len(depths) :],
            },
        }
        counts = stages.get(architecture, {"num_hidden_layers": blocks})
        config = AutoConfig.for_model(architecture, **counts, **_IMAGE_FIELDS[architecture])
        if architecture == "deit":  # transformers has two heads for it
            config.architectures = ["DeiTForImageClassification"]
        return config
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
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    reads_images = architecture in IMAGE_ARCHITECTURES
    auto: Any = AutoModelForSequenceClassification
    auto = AutoModelForImageClassification if reads_images else auto
    config = tiny_config(architecture, blocks=blocks)
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = auto.from_config(config)
        torch.manual_seed(head_seed)
        for name in head_modules(model):
            for parameter in model.get_submodule(name).parameters():
                torch.nn.init.normal_(parameter, std=0.1)
    model.train(False)
    return model


def tiny_batch(architecture: str) -> dict[str, Tensor]:
    """Two labeled rows that the tiny model reads: texts or images."""
    import torch

    labels = torch.tensor([0, 1])
    if architecture in IMAGE_ARCHITECTURES:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        return {"pixel_values": pixels, "labels": labels}
    config = tiny_config(architecture)
    ids = torch.arange(6, 22).view(2, 8)
    if config.is_encoder_decoder:
        ids[:, -1] = config.eos_token_id
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def refusals(
    method: Method, architectures: Sequence[str] = (), blocks: int = 1
) -> dict[str, str | None]:
    """{architecture: why the method does not support it, or None}, by ``check_model``.

    Args:
        method: the method.
        architectures: those to ask; none: all that read texts.
        blocks: the number of blocks of their models; a mixture needs one for each group.
    """
    messages: dict[str, str | None] = {}
    for architecture in architectures or ARCHITECTURES:
        model = _unchanged_model(architecture, blocks)
        try:
            method.check_model(model, sites(model))
        except IwloraError as refusal:
            messages[architecture] = str(refusal)
        else:
            messages[architecture] = None
    return messages


@cache
def _unchanged_model(architecture: str, blocks: int) -> PreTrainedModel:
    return tiny_model(architecture, blocks=blocks)  # check_model does not change it


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
"""Those that read texts."""

_PIXELS = {"image_size": IMAGE_SIZE, "patch_size": 4}
_VISION = _SIZES | _PIXELS
_STAGES = {"image_size": IMAGE_SIZE, "patch_size": 2}
_IMAGE_FIELDS: dict[str, dict[str, Any]] = {
    "vit": _VISION,
    "deit": _VISION,
    "dinov2": {k: v for k, v in _VISION.items() if k != "intermediate_size"} | {"mlp_ratio": 2},
    "beit": _VISION | {"drop_path_rate": 0.0},
    "swin": _STAGES | {"embed_dim": 8, "window_size": 2, "mlp_ratio": 2.0, "drop_path_rate": 0.0},
    "convnext": _STAGES | {"layer_scale_init_value": 0.5},
}
IMAGE_ARCHITECTURES = tuple(_IMAGE_FIELDS)
"""Those that read images."""
