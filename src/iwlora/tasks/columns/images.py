"""Which column of a file holds images, by its cells: paths of images or their bytes; and which
images were stored in a way that makes them nearly black."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.inputs.images import ENDINGS
from iwlora.tasks.columns.contents import Cells
from iwlora.tasks.kinds.contract import IMAGE, Dataset

_NAMES = (
    *("image", "img", "picture", "photo", "pixels", "image_path", "img_path", "image_file"),
    *("file_name", "filename", "file", "filepath", "file_path", "path", "fname"),
)
"""Usual names, the likeliest first."""
_DARK = 2**14
"""Images of 16 bits that have no larger values are named: cameras and scanners often give 10, 12 or
14 bits, and the upper 8 of 16 are read."""


def image_column(names: Sequence[str], cells: Cells) -> str | None:
    """The column with the images; None where no cells are images.

    >>> image_column(["id", "photo"], {"id": ["1"], "photo": ["a.jpg"]})
    'photo'
    """
    holding = [name for name in names if holds_images(cells.get(name, ()))]
    usual = [name for known in _NAMES for name in holding if name.lower() == known]
    return next(iter([*usual, *holding]), None)


def holds_images(cells: Sequence[Any]) -> bool:
    """Whether most cells are paths of image files, or their bytes as ``datasets`` stores them.

    The others are rows that cannot be used, which ``task.on_bad`` is for.

    >>> holds_images(["cats/1.JPG", "2.png", ""]), holds_images(["see 1.jpg", "text"])
    (True, False)
    """
    return 2 * sum(map(_is_image, cells)) > len(cells)


def notes_on_dark_images(rows: Dataset) -> list[str]:
    """A note on images of 16 bits whose values are all small, so that they are read as dark.

    >>> import datasets
    >>> rows = datasets.Dataset.from_list([{IMAGE: {"name": "a.png", "largest": 4095}}])
    >>> notes_on_dark_images(rows)
    ["images of 16 bits: 1 of 1 have no value above 4095 of 65535, such as 'a.png', and are nearly \
black, because the upper 8 bits are read; if they have 12 bits for a pixel, multiply all values by \
16 and save them again"]
    """
    facts = zip(*image_facts(rows, "name", "largest"), strict=True)
    images = [(name, largest) for name, largest in facts if largest is not None]
    dark = [image for image in images if image[1] < _DARK]
    if not dark:
        return []
    largest = max(value for _, value in dark)
    bits, name = max(largest.bit_length(), 1), dark[0][0]
    return [
        f"images of 16 bits: {len(dark):,} of {len(images):,} have no value above {largest} of "
        f"65535{f', such as {name!r},' if name else ''} and are nearly black, because the upper 8 "
        f"bits are read; if they have {bits} bits for a pixel, multiply all values by "
        f"{2 ** (16 - bits)} and save them again"
    ]


def image_facts(rows: Dataset, *names: str) -> list[list[Any]]:
    """Fields of the column ``IMAGE``, without a copy of the bytes of images."""
    column = rows.select_columns([IMAGE]).with_format("arrow")[:].column(IMAGE)
    return [
        [value for chunk in column.chunks for value in chunk.field(name).to_pylist()]
        for name in names
    ]


def _is_image(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return {"bytes", "path"} == cell.keys()
    return isinstance(cell, bytes) or (isinstance(cell, str) and cell.lower().endswith(ENDINGS))
