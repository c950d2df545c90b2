"""Rows with an image in place of a text: how they are read and encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from iwlora.errors import IwloraError, is_of_system
from iwlora.inputs.images import ImageFacts, image_bytes, open_image
from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.contract import IMAGE, Dataset, EncodingInput, Kind, Processor
from iwlora.tasks.kinds.heads import SequenceHead
from iwlora.tasks.kinds.images.augmentation import Augmentation
from iwlora.tasks.kinds.images.collator import DIGEST, ImageCollator
from iwlora.tasks.schema import TaskSchema


class ImageRows(Kind):
    """Rows with an image in place of a text.

    The text column of a row is the digest of its image file: so rows with equal images stay
    together where rows are held out, copies are counted, and a changed image changes the
    fingerprint of a run.
    """

    text_columns: ClassVar[tuple[int, int]] = (1, 1)
    image_type: ClassVar[Any] = {
        "folder": str,
        "name": str,
        "bytes": bytes,
        "width": int,
        "height": int,
        "mode": str,
        "frames": int,
        "largest": int,
    }
    processor: ClassVar[Processor] = "image processor"

    def text_parsers(self, folder: Path) -> Sequence[Callable[[Any], Any]]:
        """One that opens images."""
        return (partial(stored_image, str(folder)),)

    def shown_texts(self, rows: Dataset, column: str) -> list[str]:
        """The name of each image, or its digest where only its bytes are in the table."""
        digests = rows[column][:]
        return [row["name"] or digest for row, digest in zip(rows[IMAGE], digests, strict=True)]


class ImageHead(ImageRows, SequenceHead):
    """What all kinds share that learn a label from one image for each row."""

    auto_class_name: ClassVar[str] = "AutoModelForImageClassification"

    augmentation: Augmentation = "none"
    """What changes training images at random, anew in each epoch: none; flip-and-crop: a part of
    the image, and its mirror image half of the time; randaugment: the same, and two operations."""

    @property
    def augments(self) -> bool:
        """Whether training images are changed at random."""
        return self.augmentation != "none"

    def encode(self, data: EncodingInput) -> Dataset:
        """Where each image is, its digest, and the labels; the collator opens the images."""
        (column,) = data.schema.text
        encoded = data.rows.select_columns([column, IMAGE]).rename_column(column, DIGEST)
        encoded = encoded.add_column("length", [1] * len(encoded))
        if data.labels is None:
            return encoded
        return encoded.add_column("labels", self.targets(data.schema, data.labels[:]))

    def collator(self, tokenizer: Any, model: Any) -> ImageCollator:
        """Opens images, and makes pixels of the size that the model reads."""
        return ImageCollator(tokenizer, self.augmentation)

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """The best constant."""
        return [self.constant_floor(schema, train["label"][:], len(scored))]


def stored_image(folder: str, value: Any) -> tuple[str, dict[str, Any]]:
    """(digest, what is in the column ``IMAGE``) of the image in a cell.

    A cell is the path of a file, the bytes of one, or both, as ``datasets`` stores an image.
    """
    both = value if isinstance(value, Mapping) else {"path": value}
    if isinstance(value, bytes):
        both = {"bytes": value}
    name, content = both.get("path"), both.get("bytes")
    if not isinstance(name, str | None) or not isinstance(content, bytes | None):
        raise ValueError(
            f"holds a {type(value).__name__}, not an image; accepted: the path of a file in the "
            "folder of the table, and the bytes of one"
        )
    if content is not None:
        _, facts = open_image(content)
        name = Path(name or "").name  # where it once was on another machine
    else:
        name = parse_text(name)
        facts = _facts_of_file(folder, name)
    return facts.digest, facts.stored(name, content, folder)


def _facts_of_file(folder: str, name: str) -> ImageFacts:
    """What is in the file that a cell names; raises ``ValueError`` as ``Kind.parse_text``."""
    try:
        content = image_bytes(folder, name)
    except IwloraError as error:
        if is_of_system(error):
            raise
        raise ValueError(f"names an image that cannot be read: {error}") from None
    try:
        return open_image(content)[1]
    except ValueError as error:
        raise ValueError(f"names {name}, which {error}") from None
