"""Small gray images of two classes, and tiny models of their codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from iwlora.image_tokens.codebooks.patch_kmeans import fit_codebook
from iwlora.image_tokens.codebooks.patches import PatchCodebook
from iwlora.image_tokens.new_model import Order, save_new_model

SIZE, PATCH, CODES = 12, 4, 12
"""Of the images, in pixels, and of their codebook: nine codes for an image."""


def drawn(number: int, is_disc: bool) -> Image.Image:
    random = np.random.default_rng(number)
    image = Image.new("L", (SIZE, SIZE), 0)
    x, y = random.integers(0, 5, 2).tolist()
    shape = ImageDraw.Draw(image)
    draw = shape.ellipse if is_disc else shape.rectangle
    draw((x, y, x + 6, y + 6), fill=int(random.integers(150, 255)))
    return image.convert("RGB")


def save_images(folder: Path, train: int = 12, validation: int = 4) -> Path:
    """A folder with images of discs and squares."""
    for split, count in (("train", train), ("validation", validation)):
        for number in range(2 * count):
            name = "disc" if number % 2 else "square"
            file = folder / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            drawn(number + 1000 * (split == "train"), bool(number % 2)).save(file)
    return folder


def small_codebook() -> PatchCodebook:
    images = [drawn(number, bool(number % 2)) for number in range(1000, 1024)]
    return fit_codebook(images, codes=CODES, patch=PATCH, size=SIZE)


def save_model(folder: Path, order: Order = "masked") -> Path:
    """A tiny model without dropout."""
    sizes = {"width": 16, "blocks": 1, "heads": 2, "dropout": 0.0}
    return save_new_model(small_codebook(), folder, order=order, **sizes)  # type: ignore[arg-type]
