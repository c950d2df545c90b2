"""A small pretrained ViT for drawn shapes, where no model can be fetched.

    python benchmarks/small_vit.py --out models/small-vit
    iwlora compare recipes/compare/images.yaml model=models/small-vit --out runs/images

It learns from random weights to tell six other shapes apart: none of them is a class of
``builtin/shapes``, and all are drawn in the same places, sizes, angles and colors. So a comparison
on ``builtin/shapes`` adapts a model that knows this sort of image, and not the task. A repeated
command continues the training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
from transformers import ViTImageProcessorPil as Processor

import iwlora
from iwlora.tasks.corpora.images.shapes import SIZE, Inside, draw_shape
from iwlora.training.recipe import build

SHAPES: dict[str, Inside] = {
    "angle": lambda u, v: ((np.abs(u + 0.4) <= 0.25) | (np.abs(v + 0.4) <= 0.25)) & _disc(u, v),
    "bar": lambda u, v: (np.abs(u) <= 0.25) & _disc(u, v),
    "crescent": lambda u, v: _disc(u, v) & (np.hypot(u - 0.5, v) > 0.75),
    "half disc": lambda u, v: _disc(u, v) & (u >= 0),
    "hexagon": lambda u, v: _widest_side(u, v, 6) <= np.cos(np.pi / 6),
    "star": lambda u, v: np.sqrt(np.abs(u)) + np.sqrt(np.abs(v)) <= 1,
}
"""The classes to learn: which points lie in a shape in the unit circle."""


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    inside: np.ndarray = np.hypot(u, v) <= 1
    return inside


def _widest_side(u: np.ndarray, v: np.ndarray, sides: int) -> np.ndarray:
    turns = 2 * np.pi * np.arange(sides) / sides
    widest: np.ndarray = np.maximum.reduce([np.cos(t) * u + np.sin(t) * v for t in turns])
    return widest


def write_images(folder: Path, rows: int) -> None:
    """Class folders of drawn shapes, with a tenth as many images to validate on."""
    for number, (split, count) in enumerate((("train", rows), ("validation", max(rows // 10, 6)))):
        random = np.random.default_rng([0, number])
        for row in range(count):
            name = list(SHAPES)[row % len(SHAPES)]
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(draw_shape(SHAPES[name], random))
            image.save(folder / split / name / f"{row:06}.png")


def write_random_model(folder: Path, width: int, blocks: int) -> None:
    """A ViT with random weights that reads patches of 4 × 4 pixels, and its image processor."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=SIZE,
        patch_size=4,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 32,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    Processor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the images, train the model, and write it with its image processor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the folder of the trained model")
    parser.add_argument("--work", default="runs/small-vit", help="the folder of images and run")
    parser.add_argument("--rows", type=int, default=8000, help="number of training images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=128, help="a multiple of 32")
    parser.add_argument("--blocks", type=int, default=6)
    options = parser.parse_args(arguments)
    work = Path(options.work)
    if not (work / "images").is_dir():
        write_images(work / "images", options.rows)
    if not (work / "random").is_dir():
        write_random_model(work / "random", options.width, options.blocks)
    recipe = build(
        {
            "model": str(work / "random"),
            "task": {"train": str(work / "images"), "kind": "image-classification"},
            "method": {"name": "full"},
            "train": {"epochs": options.epochs, "lr": 5e-4, "batch_size": 64, "save_steps": 200},
        }
    )
    result = iwlora.train(recipe, work / "run", progress=True)
    iwlora.export(work / "run", options.out)
    accuracy = result["metrics"]["accuracy"]
    print(f"{100 * accuracy:.1f}% of the {len(SHAPES)} shapes are told apart; see {options.out}")


if __name__ == "__main__":
    main()
