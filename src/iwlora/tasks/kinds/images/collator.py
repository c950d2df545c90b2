"""Batches of images: opened, augmented, and made pixels; several images at a time."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError
from iwlora.inputs.images import image_bytes, open_image
from iwlora.tasks.kinds.contract import DRAW, IMAGE, Tensor
from iwlora.tasks.kinds.images.augmentation import Augmentation, augment

DIGEST = "digest"
"""The column of encoded rows with the SHA-256 of each image file."""

Row = Mapping[str, Any]
Pixels = npt.NDArray[np.uint8]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class KeptPixels(Protocol):
    """Pixels that were computed before, by the digest of the image file."""

    def read(self, digests: Sequence[str]) -> list[Pixels | None]:
        """The pixels of each image, or None for one that is not kept."""
        ...

    def add(self, pixels: Mapping[str, Pixels]) -> None:
        """Keep the pixels of images, as far as there is room."""
        ...


@dataclass(frozen=True)
class ImageCollator:
    """Batches of pixels, (rows, channels, height, width), and ``labels``.

    Args:
        processor: The image processor of the model: it resizes, crops and normalizes.
        augmentation: Of the rows that have a draw.
        decoded: Where the images of these rows are kept, as (height, width, 3).
        resized: Where images of other rows are kept, as the processor makes them before it
            normalizes: (channels, height, width).
    """

    processor: Any
    augmentation: Augmentation = "none"
    decoded: KeptPixels | None = None
    resized: KeptPixels | None = None

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The batch of these encoded rows.

        Raises:
            IwloraError: An image is gone, or is another one than when the task was loaded; or the
                processor makes images of several sizes.
        """
        import torch

        batch = {"pixel_values": self._augmented(rows) if DRAW in rows[0] else self._plain(rows)}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    def _augmented(self, rows: Sequence[Row]) -> Tensor:
        from PIL import Image

        kept = _completed(self.decoded, rows, decode)
        pairs = list(zip(kept, rows, strict=True))
        images = _in_threads(
            lambda pair: augment(Image.fromarray(pair[0]), self.augmentation, pair[1][DRAW]), pairs
        )
        return _batch(self.processor, images)

    def _plain(self, rows: Sequence[Row]) -> Tensor:
        if self.resized is None:
            images = _in_threads(open_row, rows)
            return _batch(self.processor, images)
        of_processor = partial(resize, self.processor)
        kept = _completed(self.resized, rows, lambda row: of_processor(open_row(row)))
        return normalize(self.processor, kept)


def open_row(row: Row) -> Any:
    """The image of an encoded row, as Pillow has it.

    Raises:
        IwloraError: It is gone, or is another one than when the task was loaded.
    """
    stored = row[IMAGE]
    content = stored["bytes"]
    if content is None:
        content = image_bytes(stored["folder"], stored["name"])
        if hashlib.sha256(content).hexdigest() != row[DIGEST]:
            raise IwloraError(
                f"{Path(stored['folder'], stored['name'])} has changed since the task was loaded; "
                "restore it, or begin again"
            )
    return open_image(content)[0]


def decode(row: Row) -> Pixels:
    """The image of an encoded row, (height, width, 3)."""
    return np.asarray(open_row(row))


def resize(processor: Any, image: Any) -> Pixels:
    """The first half of what an image processor does: (channels, height, width), 0 to 255."""
    made = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels: Pixels = made["pixel_values"][0]
    return pixels


def normalize(processor: Any, resized: Sequence[Pixels]) -> Tensor:
    """The other half, for a batch."""
    return _batch(
        processor,
        resized,
        do_resize=False,
        do_center_crop=False,
        do_convert_rgb=False,
        input_data_format="channels_first",
    )


def works_in_halves(processor: Any, images: Sequence[Any]) -> bool:
    """Whether :func:`resize` and :func:`normalize` compute what the processor computes, to the bit.

    Processors of other people may do more between the two, or have other options.
    """
    import torch

    whole = _batch(processor, images)
    try:
        resized = [resize(processor, image) for image in images]
        if any(pixels.dtype != np.uint8 or pixels.ndim != 3 for pixels in resized):
            return False
        return torch.equal(normalize(processor, resized), whole)
    except (AttributeError, KeyError, TypeError, ValueError):  # it knows no such option
        return False


def _batch(processor: Any, images: Sequence[Any], **options: Any) -> Tensor:
    """What the processor makes of images, (rows, channels, height, width)."""
    try:
        pixels: Tensor = processor(list(images), return_tensors="pt", **options)["pixel_values"]
        return pixels
    except ValueError:
        one_by_one = processor(list(images), **options)["pixel_values"]
        sizes = sorted({np.shape(image)[-2:] for image in one_by_one})
        if len(sizes) < 2:
            raise
    shown = " and ".join(f"{height} × {width}" for height, width in sizes[:2])
    raise IwloraError(
        f"the image processor of the model makes images of several sizes, such as {shown} pixels, "
        "which cannot be in one batch; in its preprocessor_config.json set do_resize: true and a "
        "size with height and width, or do_center_crop: true"
    )


def _completed(
    kept: KeptPixels | None, rows: Sequence[Row], compute: Callable[[Row], Pixels]
) -> list[Pixels]:
    """What is kept of the rows; what is not is computed, and kept from then on."""
    digests = [row[DIGEST] for row in rows]
    found = kept.read(digests) if kept else [None] * len(rows)
    missing = {d: row for d, row, f in zip(digests, rows, found, strict=True) if f is None}
    new = dict(zip(missing, _in_threads(compute, missing.values()), strict=True))
    if kept and new:
        kept.add(new)
    return [new[d] if f is None else f for d, f in zip(digests, found, strict=True)]


def _in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """The results in the order of the items, by as many threads as PyTorch computes with.

    Pillow decodes and resizes without Python's lock. Threads need no copy of the rows, and no
    random numbers are drawn in them but those of the row's own generator.
    """
    import torch

    items = list(items)
    threads = min(len(items), torch.get_num_threads())
    if threads < 2:
        return [function(item) for item in items]
    # What opens images silences warnings for a moment, which is not safe in several threads: the
    # filters before are restored here, when all threads have ended.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")
        return list(pool.map(function, items))
