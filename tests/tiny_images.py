"""Drawn images of discs and squares, and a tiny ViT that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from iwlora.methods.tiny_models import IMAGE_SIZE, tiny_model


def draw(path: Path, number: int, is_disc: bool) -> None:
    random = np.random.default_rng(number)
    image = Image.new("RGB", (20 + number % 5, 24), tuple(random.integers(0, 60, 3).tolist()))
    x, y = random.integers(1, 8, 2).tolist()
    shape = ImageDraw.Draw(image)
    (shape.ellipse if is_disc else shape.rectangle)((x, y, x + 10, y + 10), fill=(250, 240, 230))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_tiny_vit(folder: Path) -> Path:
    from transformers import ViTImageProcessorPil

    tiny_model("vit").save_pretrained(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder
