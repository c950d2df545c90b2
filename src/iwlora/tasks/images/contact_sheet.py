"""A contact sheet: some training images of each class in one picture, to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.contract import IMAGE
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from iwlora.tasks.task import Task

SIDE, GAP, LINE = 96, 8, 18
"""Of a thumbnail, between two, and the height of a line of text, in pixels."""
MOST_CLASSES, IN_A_ROW = 40, 10
_MOST_LETTERS = 150


def contact_sheet(task: Task) -> bytes:
    """A PNG with up to ten training images of each of the first 40 classes, below its name.

    Images of tasks without classes stand together. The images are evenly spaced over the rows, in
    the order of the data, and nothing of their files is copied but pixels.

    Raises:
        IwloraError: The task has no images.
    """
    from PIL import Image, ImageDraw

    if not task.kind.reads_images:
        raise IwloraError(f"{task.name} has no images for a contact sheet; it is {task.kind.name}")
    groups = list(_groups(task))
    width = GAP + IN_A_ROW * (SIDE + GAP)
    height = GAP + len(groups) * (LINE + SIDE + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    drawing = ImageDraw.Draw(sheet)
    for number, (title, rows) in enumerate(groups):
        top = GAP + number * (LINE + SIDE + GAP)
        drawing.text((GAP, top), _drawable(title)[:_MOST_LETTERS], "black")
        for column, row in enumerate(rows):
            thumbnail = small(open_row(_encoded(task, row)), SIDE)
            left = GAP + column * (SIDE + GAP) + (SIDE - thumbnail.width) // 2
            sheet.paste(thumbnail, (left, top + LINE + (SIDE - thumbnail.height) // 2))
    stream = BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def small(image: Any, side: int) -> Any:
    """The whole image in a square of so many pixels, never enlarged, without any metadata."""
    thumbnail = image.copy()
    thumbnail.thumbnail((side, side))
    thumbnail.info.clear()
    return thumbnail


def _drawable(text: str) -> str:
    """The text with a question mark for each letter that Pillow's own font may not have."""
    latin = text.encode("latin-1", "replace").decode("latin-1")
    return "".join(letter if letter.isprintable() else "?" for letter in latin)


def _groups(task: Task) -> Iterator[tuple[str, Sequence[int]]]:
    """(title, rows) of each class, or of all rows where there are none."""
    labels = task.splits["train"].select_columns("label")["label"][:]
    if not task.kind.has_classes:
        yield f"{len(labels):,} images", _spread(np.arange(len(labels)))
        return
    for number, name in enumerate(task.labels[:MOST_CLASSES]):
        has = [number == label if isinstance(label, int) else number in label for label in labels]
        rows = np.flatnonzero(has)
        yield f"{name}: {len(rows):,} images", _spread(rows)


def _spread(rows: Any) -> list[int]:
    places = np.unique(np.linspace(0, len(rows) - 1, IN_A_ROW).round().astype(int))
    return [int(rows[place]) for place in places] if len(rows) else []


def _encoded(task: Task, row: int) -> dict[str, Any]:
    found = task.splits["train"][row]
    return {IMAGE: found[IMAGE], DIGEST: found[task.text[0]]}
