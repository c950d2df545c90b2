"""Which column of a file holds images: by its cells, which are paths of images or their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.inputs.images import ENDINGS
from iwlora.tasks.columns.contents import Cells

_NAMES = (
    *("image", "img", "picture", "photo", "pixels", "image_path", "img_path", "image_file"),
    *("file_name", "filename", "file", "filepath", "file_path", "path", "fname"),
)
"""Usual names, the likeliest first."""


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


def _is_image(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return {"bytes", "path"} == cell.keys()
    return isinstance(cell, bytes) or (isinstance(cell, str) and cell.lower().endswith(ENDINGS))
