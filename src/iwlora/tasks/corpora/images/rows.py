"""Rows of named tasks on images, as a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.inputs.images import ImageFacts
from iwlora.tasks.kinds.contract import IMAGE, Dataset
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.splits import arrow_type, in_memory

ImageRow = tuple[str, dict[str, Any], int]
"""(digest, what is in the column ``IMAGE``, class id)."""


def image_rows(column: str, rows: Iterable[ImageRow]) -> Dataset:
    """The rows of a split, with the digests in a column of this name."""
    import pyarrow

    kind = ImageClassification()
    text_type, _, label_type = map(arrow_type, kind.column_types)
    types = [text_type, label_type, arrow_type(kind.image_type)]
    digests, images, labels = map(list, zip(*rows, strict=True))
    schema = pyarrow.schema(list(zip((column, "label", IMAGE), types, strict=True)))
    return in_memory(pyarrow.table([digests, labels, images], schema))


def row_of_pixels(pixels: npt.NDArray[np.uint8], name: str, label: int) -> ImageRow:
    """A row whose image is its pixels, (height, width, 3), as a file in the format PPM."""
    content = portable_pixmap(pixels)
    height, width = pixels.shape[:2]
    facts = ImageFacts(hashlib.sha256(content).hexdigest(), width, height, "RGB", 1)
    return facts.digest, facts.stored(name, content), label


def portable_pixmap(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An image as a file without compression, which has the same bytes everywhere."""
    return b"P6\n%d %d\n255\n" % pixels.shape[1::-1] + pixels.tobytes()
