"""``builtin/strokes``: shapes drawn in white strokes on black, generated from a seed.

They are what ``builtin/shapes`` has, as a pen would draw it, and with further forms. So a codebook
of their patches has codes for handwriting too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.corpora.images.rows import image_rows, row_of_pixels
from iwlora.tasks.corpora.images.shapes import inside
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.task import Task

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LABELS = ("angle", "arc", "circle", "cross", "line", "square", "triangle")
SIZE = 28
"""Width and height of an image, in pixels."""
ROWS = {"train": 3000, "test": 500}
_SAMPLES = 2  # of a pixel along each axis, so that edges are smooth


@dataclass(frozen=True, kw_only=True)
class StrokesCorpus(Corpus):
    """A task that is generated: it needs no files and no network."""

    grammar_seed: int = 0

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task with the seed of this corpus."""
        splits = {}
        for number, (split, size) in enumerate(ROWS.items()):
            random = np.random.default_rng([self.grammar_seed, number])
            labels = random.permutation(np.arange(size) % len(LABELS)).tolist()
            rows = [
                row_of_pixels(draw(LABELS[label], random), f"{LABELS[label]}-{row}", label)
                for row, label in enumerate(labels)
            ]
            splits[split] = image_rows(self.text[0], rows)
        return Task(name, self.text, self.labels, self.metrics, kind=self.kind, splits=splits)


TASKS: Mapping[str, StrokesCorpus] = {
    "builtin/strokes": StrokesCorpus(
        summary="which shape is drawn in strokes? images generated from a seed, no download",
        text=("image",),
        labels=LABELS,
        kind=ImageClassification(),
        metrics=ImageClassification.default_metrics,
        splits=tuple(ROWS),
    )
}


def draw(shape: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An image of a shape in white strokes on black, (height, width, 3).

    >>> draw("line", np.random.default_rng(0)).shape
    (28, 28, 3)
    """
    radius = random.uniform(0.28, 0.44) * SIZE
    x, y = random.uniform(radius, SIZE - radius, 2)
    angle = random.uniform(0, 2 * np.pi)
    width = random.uniform(2.0, 3.5) / radius
    narrowed = random.uniform(1.0, 1.8)
    steps = (np.arange(SIZE * _SAMPLES) + 0.5) / _SAMPLES
    across, down = steps[None] - x, steps[:, None] - y
    u = narrowed * (np.cos(angle) * across + np.sin(angle) * down) / radius
    v = (np.cos(angle) * down - np.sin(angle) * across) / radius
    drawn = _stroke(shape, u, v, width).reshape(SIZE, _SAMPLES, SIZE, _SAMPLES).mean(axis=(1, 3))
    white = random.uniform(200, 255)
    gray = (white * drawn).round().astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def _stroke(shape: str, u: Floats, v: Floats, width: float) -> npt.NDArray[np.bool_]:
    """Which points lie on the strokes of a shape that fills the unit circle."""
    if shape in ("angle", "cross", "line"):
        along = np.maximum(np.abs(u), np.abs(v)) <= 0.9
        upright, level = np.abs(u) <= width / 2, np.abs(v) <= width / 2
        if shape == "angle":
            upright, level = upright & (v >= -width / 2), level & (u >= -width / 2)
        lines = upright | level if shape != "line" else upright
        return lines & along
    filled = "disc" if shape in ("arc", "circle") else shape
    edge = inside(filled, u, v) & ~inside(filled, u / (1 - width), v / (1 - width))
    return edge & (v >= 0) if shape == "arc" else edge
