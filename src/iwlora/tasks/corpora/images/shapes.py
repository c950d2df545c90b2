"""``builtin/shapes``: drawn shapes, generated from a seed, so that tasks on images need no files.

The class of an image is its shape. Its place, size, angle, colors and noise are drawn
independently of the class, so that the mean color of an image says nothing about it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from iwlora.errors import raise_all
from iwlora.inputs.images import open_image
from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.corpora.images.rows import ImageRow, image_rows, portable_pixmap
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.task import Task

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Inside: TypeAlias = "Callable[[Floats, Floats], npt.NDArray[np.bool_]]"
"""Which of the points (u, v) lie in a shape that fills the unit circle."""

LABELS = ("cross", "disc", "ring", "square", "triangle")
SIZE = 32
"""Width and height of an image, in pixels."""
MOST_ROWS = 100_000
_SAMPLES = 2  # of a pixel along each axis, so that edges are smooth
_NOISE = 12.0  # standard deviation, of 255


@dataclass(frozen=True, kw_only=True)
class ShapesCorpus(Corpus):
    """A task that is generated: it needs no files and no network."""

    grammar_seed: int = 0

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task with the seed of this corpus and the default sizes of :func:`generate`."""
        splits = {
            split: image_rows(self.text[0], map(_row, rows, range(len(rows))))
            for split, rows in generate(self.grammar_seed).items()
        }
        return Task(name, self.text, self.labels, self.metrics, kind=self.kind, splits=splits)


TASKS: Mapping[str, ShapesCorpus] = {
    "builtin/shapes": ShapesCorpus(
        summary="which shape is drawn? images generated from a seed, no download",
        text=("image",),
        labels=LABELS,
        kind=ImageClassification(),
        metrics=ImageClassification.default_metrics,
        splits=("train", "validation", "test"),
    )
}


def generate(
    seed: int = 0, train: int = 1000, validation: int = 200, test: int = 400
) -> dict[str, list[tuple[bytes, int]]]:
    """Generate the rows of the three splits; the same rows for the same seed and sizes.

    In every split each class has a fifth of the rows (to within one where it does not divide).

    Args:
        seed: Seeds the draws.
        train: Rows of the training split.
        validation: Rows of the validation split.
        test: Rows of the test split.

    Returns:
        ``{split: [(the file of an image in the format PPM, class id), ...]}``

    Raises:
        IwloraError: A size is negative, or larger than ``MOST_ROWS``.

    Example:
        >>> rows = generate(train=5, validation=0, test=0)["train"]
        >>> sorted(label for _, label in rows), len(rows[0][0])
        ([0, 1, 2, 3, 4], 3085)
    """
    sizes = {"train": train, "validation": validation, "test": test}
    raise_all(
        [
            f"{split}={size}: accepted are 0 to {MOST_ROWS:,} rows"
            for split, size in sizes.items()
            if not 0 <= size <= MOST_ROWS
        ]
    )
    rows = {}
    for number, (split, size) in enumerate(sizes.items()):
        random = np.random.default_rng([seed, number])
        labels = random.permutation(np.arange(size) % len(LABELS)).tolist()
        rows[split] = [(portable_pixmap(draw(LABELS[label], random)), label) for label in labels]
    return rows


def draw(shape: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An image of one of the five shapes, (height, width, 3)."""
    return draw_shape(partial(inside, shape), random)


def draw_shape(shape: Inside, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An image of any shape, (height, width, 3)."""
    radius = random.uniform(0.2, 0.38) * SIZE
    x, y = random.uniform(radius, SIZE - radius, 2)
    angle = random.uniform(0, 2 * np.pi)
    steps = (np.arange(SIZE * _SAMPLES) + 0.5) / _SAMPLES
    across, down = steps[None] - x, steps[:, None] - y
    u = (np.cos(angle) * across + np.sin(angle) * down) / radius
    v = (np.cos(angle) * down - np.sin(angle) * across) / radius
    covered = shape(u, v).reshape(SIZE, _SAMPLES, SIZE, _SAMPLES).mean(axis=(1, 3))
    hue, other = random.uniform(0, 1), random.uniform(0.25, 0.75)
    dark, light = random.permutation([random.uniform(0.1, 0.45), random.uniform(0.6, 1.0)])
    colors = [
        np.multiply(255, colorsys.hsv_to_rgb(h % 1, random.uniform(0.2, 0.9), value))
        for h, value in ((hue, dark), (hue + other, light))
    ]
    mixed = colors[0] + covered[..., None] * (colors[1] - colors[0])
    noisy = mixed + _NOISE * random.standard_normal(mixed.shape)
    pixels: npt.NDArray[np.uint8] = np.clip(noisy.round(), 0, 255).astype(np.uint8)
    return pixels


def inside(shape: str, u: Floats, v: Floats) -> npt.NDArray[np.bool_]:
    """Which points lie in a shape that fills the unit circle."""
    distance = np.hypot(u, v)
    corners = np.pi * np.array([0, 2, 4]) / 3  # of the triangle; each side is at half the radius
    sides = [np.cos(corner) * u + np.sin(corner) * v for corner in corners]
    shapes: dict[str, npt.NDArray[np.bool_]] = {
        "disc": distance <= 1,
        "ring": (distance <= 1) & (distance >= 0.6),
        "square": np.maximum(np.abs(u), np.abs(v)) <= np.sqrt(0.5),
        "cross": (np.minimum(np.abs(u), np.abs(v)) <= 0.28) & (distance <= 1),
        "triangle": np.maximum.reduce(sides) <= 0.5,
    }
    return shapes[shape]


def _row(file: tuple[bytes, int], number: int) -> ImageRow:
    content, label = file
    facts = open_image(content)[1]
    return facts.digest, facts.stored(f"{LABELS[label]}-{number}", content), label
