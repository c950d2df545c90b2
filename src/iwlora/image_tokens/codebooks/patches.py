"""A codebook of patches: square images as grids of codes, and back. Pillow and NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import (
    FILE,
    MOST_CODES,
    MOST_TOKENS,
    Codebook,
    Pixels,
    pixels_of,
)
from iwlora.inputs.tensors import load_arrays, tensor_metadata

if TYPE_CHECKING:
    from PIL.Image import Image

_TENSOR, _SIDE = "codes", "side"


@dataclass(frozen=True)
class PatchCodebook(Codebook):
    """Cuts square images into patches, each of which becomes the code of the nearest patch.

    id(x) = argmin_k |x - v_k|², the lowest k among equals, where v_k is the patch of code k.

    Args:
        patches: v, (codes, height, width, channels) in 0...255, all different; one channel is gray.
        side: The number of patches along each side of an image.

    Raises:
        IwloraError: The patches are not what a codebook needs.

    Example:
        >>> black_and_white = np.array([[[[0]]], [[[255]]]], np.uint8)
        >>> codebook = PatchCodebook(black_and_white, side=2)
        >>> codebook.encode(codebook.decode([0, 1, 1, 0]))
        [0, 1, 1, 0]
    """

    patches: Pixels
    side: int

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise IwloraError(f"a codebook cannot have {problem}")

    def _problem(self) -> str | None:
        shape = self.patches.shape
        if self.patches.dtype != np.uint8 or len(shape) != 4:
            return f"patches of type {self.patches.dtype} and shape {shape}"
        if shape[1] != shape[2] or not shape[1] or shape[3] not in (1, 3):
            return f"patches of shape {shape[1:]}; accepted: squares with 1 or 3 channels"
        if not 2 <= len(self.patches) <= MOST_CODES:
            return f"{len(self.patches):,} codes; accepted: 2 to {MOST_CODES:,}"
        if not 1 <= self.side**2 <= MOST_TOKENS:
            return f"{self.side} patches along a side; accepted: 1 to {int(MOST_TOKENS**0.5)}"
        if len(np.unique(self._rows, axis=0)) < len(self.patches):
            return "two equal patches"
        return None

    @property
    def count(self) -> int:
        """The number of codes."""
        return len(self.patches)

    @property
    def tokens(self) -> int:
        """The number of codes of an image."""
        return self.side**2

    @property
    def size(self) -> int:
        """The width and height of a decoded image, in pixels."""
        return int(self.side * self.patches.shape[1])

    @cached_property
    def digest(self) -> str:
        """A hash of the codebook: two with the same digest give the same codes."""
        shape = np.array([*self.patches.shape, self.side], np.int64)
        content = shape.astype("<i8").tobytes() + np.ascontiguousarray(self.patches).tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def encode(self, image: Image | Pixels) -> list[int]:
        """The codes of an image.

        Args:
            image: In RGB, or pixels of shape (height, width, 3). Another size is scaled to that of
                the codebook, and for a gray codebook colors become gray.

        Raises:
            IwloraError: It is not square.
        """
        size, channels = self.size, self.patches.shape[3]
        rows = patches_of(pixels_of(image, size, channels), self.patches.shape[1])
        codes: list[int] = nearest(rows.reshape(self.tokens, -1), self._rows)[0].tolist()
        return codes

    def decode(self, codes: Sequence[int]) -> Pixels:
        """The image of some codes, (height, width, 3). Its codes are the given ones.

        Raises:
            IwloraError: The number of codes is another one, or a code is unknown.
        """
        self.check(codes)
        patch, side = self.patches.shape[1], self.side
        grid = self.patches[np.asarray(codes)].reshape(side, side, patch, patch, -1)
        image = grid.transpose(0, 2, 1, 3, 4).reshape(self.size, self.size, -1)
        pixels: Pixels = np.broadcast_to(image, (self.size, self.size, 3)).copy()
        return pixels

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``codes.safetensors`` into a folder, which is made if it is missing."""
        from safetensors.numpy import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {_TENSOR: np.ascontiguousarray(self.patches)}
        save_file(tensors, Path(folder) / FILE, metadata={_SIDE: str(self.side)})

    @classmethod
    def in_file(cls, path: Path) -> PatchCodebook:
        """The codebook in a file.

        Raises:
            IwloraError: It is damaged.
        """
        arrays, side = load_arrays(path), tensor_metadata(path).get(_SIDE, "")
        if arrays.keys() != {_TENSOR} or not side.isdecimal() or len(side) > len(str(MOST_TOKENS)):
            raise IwloraError(f"{path} is no codebook: it has no tensor {_TENSOR!r} and its side")
        try:
            return cls(arrays[_TENSOR], int(side))
        except IwloraError as error:
            raise IwloraError(f"{path} is damaged: {error}") from None

    @cached_property
    def _rows(self) -> Pixels:
        """(codes, values of a patch)."""
        return self.patches.reshape(len(self.patches), -1)


def patches_of(pixels: Pixels, patch: int) -> Pixels:
    """The patches of an image, (patches, patch, patch, channels), in the order of reading."""
    side = len(pixels) // patch
    grid = pixels.reshape(side, patch, side, patch, -1).transpose(0, 2, 1, 3, 4)
    patches: Pixels = grid.reshape(side * side, patch, patch, -1)
    return patches


def nearest(rows: Pixels, codes: Pixels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(the nearest code of each row, the squared distance to it).

    All values are whole numbers below 2**53, so float64 has them exactly, in any order of sums:
    every machine finds the same codes.
    """
    x, v = rows.astype(np.float64), codes.astype(np.float64)
    distances = (v**2).sum(1) - 2 * (x @ v.T)  # (rows, codes), without |x|²
    found = distances.argmin(1)
    return found, distances[np.arange(len(x)), found] + (x**2).sum(1)
