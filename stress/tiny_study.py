"""A tiny model and a task that it learns in seconds, for the stress scripts and the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = (
    "the a every no some dog cat man woman child sees hears likes was seen by not and who that "
    "runs sleeps good bad film great awful it is very old new red small . , ?"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS, *LETTERS[1:], *(f"##{letter}" for letter in LETTERS)]


def save_model(
    folder: Path,
    architecture: str = "bert",
    seed: int = 0,
    vocabulary: Sequence[str] = VOCABULARY,
    **config: Any,
) -> Path:
    """Save a model of two blocks of 16 units, and its tokenizer.

    Args:
        folder: Where ``from_pretrained`` will load it from; created.
        architecture: A model type of transformers.
        seed: Of its random weights.
        vocabulary: The word pieces of its tokenizer.
        config: Fields of its configuration, such as ``hidden_dropout_prob``.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoModel, BertTokenizer

    from iwlora.methods.tiny_models import tiny_config

    folder.mkdir(parents=True, exist_ok=True)
    model_config = tiny_config(architecture, vocab_size=len(vocabulary))
    model_config.update(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(model_config).save_pretrained(folder)
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizer(str(file), model_max_length=64).save_pretrained(folder)
    return folder


def save_task(folder: Path, train: int = 32, validation: int = 16) -> dict[str, str]:
    """Write films' reviews as CSV files; returns the ``task:`` part of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    task = {"text": "text", "label": "mood"}
    for split, count in (("train", train), ("validation", validation)):
        file = folder / f"{split}.csv"
        file.write_text(_reviews(count), encoding="utf-8")
        task[split] = str(file)
    return task


def _reviews(count: int) -> str:
    """``count`` rows; every other one is positive."""
    adjectives = ("bad", "good", "awful", "great")
    lines = ["text,mood"]
    for row in range(count):
        text = f"it is a {'very ' * (row % 3)}{adjectives[row % 4]} film"
        lines.append(f"{text},{'pos' if row % 2 else 'neg'}")
    return "\n".join(lines) + "\n"


def run_settings(model: Path, task: Mapping[str, str], method: str = "lora") -> dict[str, Any]:
    """The settings of a run of two optimizer steps."""
    from iwlora.methods import METHODS

    size = {METHODS[method].size_knob: 2} if METHODS[method].size_knob else {}
    return {
        "model": str(model),
        "task": dict(task),
        "method": {"name": method, **size},
        "train": {"epochs": 1, "lr": 5e-3, "batch_size": 16, "max_length": 32},
    }
