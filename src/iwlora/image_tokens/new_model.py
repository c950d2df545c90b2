"""A new transformer for the codes of a codebook, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from iwlora.errors import IwloraError, raise_all
from iwlora.image_tokens.codebook import Codebook
from iwlora.image_tokens.image_codes import ImageCodes

Order = Literal["masked", "next-code"]


def save_new_model(
    codebook: Codebook,
    folder: str | Path,
    *,
    order: Order = "masked",
    width: int = 96,
    blocks: int = 3,
    heads: int = 4,
    dropout: float = 0.1,
    seed: int = 0,
) -> Path:
    """Write a model that reads the codes of a codebook, and the codebook, into a folder.

    Args:
        codebook: Of the images.
        folder: Where ``config.json``, ``model.safetensors`` and ``codes.safetensors`` go.
        order: masked: BERT, which predicts masked codes; next-code: GPT-2.
        width: Of a hidden state, a multiple of ``heads``.
        blocks: Their number.
        heads: Of attention.
        dropout: Of hidden states and attention, in training.
        seed: Of the weights.

    Raises:
        IwloraError: A number is impossible.
    """
    import torch

    from iwlora.image_tokens.models import MODELS

    numbers = {"width": width, "blocks": blocks, "heads": heads}
    problems = [f"{name}={n}; accepted: 1 or more" for name, n in numbers.items() if n < 1]
    if not problems and width % heads:
        problems = [f"width={width} is no multiple of heads={heads}"]
    raise_all(problems)
    if not 0 <= dropout < 1:
        raise IwloraError(f"dropout={dropout}; accepted: 0 to below 1")
    config = _config(codebook, order, width, blocks, heads, dropout)
    ImageCodes.of_codebook(codebook).put_into(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[config.model_type]._from_config(config)
    weights = model.state_dict()  # class prompts are new for each task
    shared = {name: v for name, v in weights.items() if not name.startswith("class_prompts.")}
    model.save_pretrained(folder, state_dict=shared)
    codebook.save_pretrained(folder)
    return Path(folder)


def _config(
    codebook: Codebook, order: Order, width: int, blocks: int, heads: int, dropout: float
) -> Any:
    from transformers import BertConfig, GPT2Config

    positions = codebook.tokens + 1
    if order == "masked":
        return BertConfig(
            vocab_size=codebook.count + 1,
            hidden_size=width,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_act="gelu_pytorch_tanh",
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=positions,
            type_vocab_size=1,
            pad_token_id=None,
        )
    return GPT2Config(
        vocab_size=codebook.count,
        n_embd=width,
        n_layer=blocks,
        n_head=heads,
        n_positions=positions,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        resid_pdrop=dropout,
        bos_token_id=None,
        eos_token_id=None,
    )
