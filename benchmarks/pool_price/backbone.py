"""A small ViT that has learned to see drawn shapes: the backbone of the study on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import ViTConfig, ViTForImageClassification
from transformers import ViTImageProcessorPil as Processor

from iwlora.results import layout
from iwlora.tasks.corpora.images.shapes import LABELS, generate
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.sharing.export import export

_ROWS, _VALIDATION, _EPOCHS = 6000, 500, 10
_SIDE, _PATCH, _WIDTH, _BLOCKS, _HEADS = 32, 4, 96, 4, 3


def shapes_backbone(folder: Path) -> Path:
    """The folder of the model, which is trained unless it was."""
    run, model = folder / "run", folder / "model"
    if model.is_dir():
        return model
    if not (run / layout.RESULT).is_file():
        _write_shapes(folder / "shapes")
        _write_start(folder / "start")
        settings: dict[str, Any] = {
            "model": str(folder / "start"),
            "task": {"train": str(folder / "shapes"), "kind": {"name": "image-classification"}},
            "method": "full",
            "train": {"epochs": _EPOCHS, "lr": 1e-3, "batch_size": 64, "weight_decay": 0.05},
        }
        train(build(settings), run)
    return export(run, model)


def _write_shapes(folder: Path) -> None:
    rows = generate(seed=1, train=_ROWS, validation=_VALIDATION, test=0)
    for split in ("train", "validation"):
        for number, (content, label) in enumerate(rows[split]):
            file = folder / split / LABELS[label] / f"{number}.ppm"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _write_start(folder: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=_SIDE,
        patch_size=_PATCH,
        hidden_size=_WIDTH,
        num_hidden_layers=_BLOCKS,
        num_attention_heads=_HEADS,
        intermediate_size=4 * _WIDTH,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    Processor(size={"height": _SIDE, "width": _SIDE}).save_pretrained(folder)
