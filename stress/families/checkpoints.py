"""A tiny random checkpoint of a family, as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from families.catalogue import checkpoint_class
from families.tiny_configs import tiny_config
from tiny_study import VOCABULARY

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "bos": 2, "sep": 3, "eos": 3, "mask": 4}
# As many published models do, these have more embeddings than their tokenizers have tokens.
EMBEDDINGS = len(VOCABULARY) + 10


def save_checkpoint(folder: Path, family: str, kind: str, **changes: Any) -> Path:
    """Save a tiny model of a family, as its checkpoints usually are, and a tokenizer.

    The weights are larger than transformers initializes them, so that a wrong weight changes the
    outputs by much more than rounding does.

    Args:
        folder: Where to save it.
        family: A model type of transformers.
        kind: The kind of task that a model for is going to be loaded from it.
        changes: Fields of the configuration.

    Returns:
        The folder.
    """
    import torch
    from transformers import BertTokenizer
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = tiny_config(CONFIG_MAPPING[family], TOKENS, EMBEDDINGS)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = checkpoint_class(family, kind).from_config(config)
        _enlarge(model)
    model.save_pretrained(folder)
    file = folder / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    inputs = ["input_ids", "attention_mask"]
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs.append("token_type_ids")
    tokenizer = BertTokenizer(
        str(file),
        model_max_length=64,
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=inputs,
    )
    tokenizer.save_pretrained(folder)
    return folder


def _enlarge(model: Any) -> None:
    """Give every weight matrix entries of the size 1 / √d_in, and every zero one random entries."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2 or not parameter.is_floating_point():
                continue
            size = parameter.shape[-1] ** -0.5
            spread = parameter.std()
            if spread > 0:
                parameter.mul_(max(1.0, float(size / spread)))
            else:
                parameter.normal_(std=size)
