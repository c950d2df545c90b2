"""Decoded images that are kept for the epochs of a run, and for all runs of a comparison."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from iwlora.results import layout
from iwlora.results.formats import content_digest
from iwlora.tasks.kinds.contract import Dataset
from iwlora.tasks.kinds.images.collator import ImageCollator, Pixels, open_row, works_in_halves
from iwlora.training.load import LoadedRecipe
from iwlora.training.row_store.stored_rows import KEY_BYTES, MOST_BYTES, StoredRows

_SHAPE = np.dtype("<u4")
_AXES = 3
_PROBED_ROWS = 2


class KeptImages:
    """Arrays of 8 bits with three axes in a folder, by the digest of an image's file.

    Args:
        folder: Where they are kept; created with the first one.
        most_bytes: As of :class:`StoredRows`.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._rows = StoredRows(folder, 1, torch.uint8, most_bytes, "images")

    def read(self, digests: Sequence[str]) -> list[Pixels | None]:
        """The array of each image, or None for one that is not kept."""
        found = self._rows.read([_key(digest) for digest in digests])
        return [None if values is None else _array(values.numpy()) for values in found]

    def add(self, pixels: Mapping[str, Pixels]) -> None:
        """Keep the arrays of images, as far as there is room."""
        self._rows.add({_key(digest): _values(array) for digest, array in pixels.items()})


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest)[:KEY_BYTES]


def _values(array: Pixels) -> torch.Tensor:
    shape = np.array(array.shape, _SHAPE).view(np.uint8)
    return torch.from_numpy(np.concatenate([shape, array.reshape(-1)])).unsqueeze(1)


def _array(values: Pixels) -> Pixels:
    flat = values.reshape(-1)
    start = _AXES * _SHAPE.itemsize
    return flat[start:].reshape(flat[:start].view(_SHAPE))


def with_kept_images(loaded: LoadedRecipe, run: Path) -> LoadedRecipe:
    """A loaded recipe whose batches of images take what was decoded before.

    Training images that are augmented are kept as they are in their files, all others as the image
    processor resizes and crops them, if its further steps alone then give the same to the bit.

    Args:
        loaded: What a recipe names; without images it is returned as it is.
        run: The folder of the run. The images are kept in that of its comparison, if it has one.
    """
    collate, settings = loaded.collate, loaded.recipe.train
    comparison = layout.comparison_of(run)
    read_again = comparison is not None or settings.max_steps or settings.epochs > 1
    if not isinstance(collate, ImageCollator) or not (settings.cache_images and read_again):
        return loaded
    keeping = keep_images(collate, loaded.encoded["train"], comparison or run)
    return replace(loaded, collate=keeping)


def keep_images(collate: ImageCollator, rows: Dataset, folder: Path) -> ImageCollator:
    """A collator that takes what was decoded before, and keeps what is decoded.

    Args:
        collate: One that opens images each time.
        rows: Encoded rows; with a few of them the image processor is tried.
        folder: Of the run or the comparison.
    """
    folder, processor = folder / layout.DECODED_IMAGES, collate.processor
    libraries = {name: version(name) for name in ("pillow", "numpy", "transformers")}
    augments = collate.augmentation != "none"
    decoded = KeptImages(folder / content_digest(libraries)) if augments else None
    probed = [open_row(rows[number]) for number in range(min(_PROBED_ROWS, len(rows)))]
    resized = None
    if works_in_halves(processor, probed):
        made_by = {**libraries, "processor": processor.to_json_string()}
        resized = KeptImages(folder / content_digest(made_by))
    return replace(collate, decoded=decoded, resized=resized)


def remove_own_images(run: Path) -> None:
    """Remove what a run that has ended kept for itself; a comparison keeps its images."""
    shutil.rmtree(run / layout.DECODED_IMAGES, ignore_errors=True)
