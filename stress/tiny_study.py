"""A model of two small blocks and a task that it learns in seconds, for studies of many runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BertTokenizerFast

from iwlora.methods import METHODS
from iwlora.methods.tiny_models import tiny_config

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a film it is very old new good great bad awful , .".split()


def save_model(folder: Path) -> Path:
    """A BERT of 16 units, with a tokenizer of a few words, as ``from_pretrained`` loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(tiny_config("bert", len(WORDS))).save_pretrained(folder)
    words = folder / "vocab.txt"
    words.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(words), model_max_length=64).save_pretrained(folder)
    return folder


def rows(count: int) -> str:
    """``count`` reviews as CSV; every other one is good."""
    words = ("bad", "good", "awful", "great")
    lines = [f"it is a {'very ' * (row % 3)}{words[row % 4]} film" for row in range(count)]
    told = [f"{line},{'pos' if row % 2 else 'neg'}" for row, line in enumerate(lines)]
    return "\n".join(["text,mood", *told]) + "\n"


def save_task(folder: Path, train: int = 32, validation: int = 16) -> dict[str, str]:
    """The ``task:`` part of a recipe, its files written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": folder / "train.csv", "validation": folder / "validation.csv"}
    for (split, file), count in zip(files.items(), (train, validation), strict=True):
        file.write_text(rows(count), encoding="utf-8")
        files[split] = file
    return {**{split: str(file) for split, file in files.items()}, "text": "text", "label": "mood"}


def settings(model: Path, task: Mapping[str, str], method: str = "lora") -> dict[str, Any]:
    """A recipe of two optimizer steps."""
    knob = METHODS[method].size_knob
    size = {knob: 2} if knob else {}
    train = {"epochs": 1, "lr": 5e-3, "batch_size": 16, "max_length": 32}
    options = {"name": method, **size}
    return {"model": str(model), "task": dict(task), "method": options, "train": train}
