"""Codebooks: square images as grids of codes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "codes.safetensors"
"""The file of a codebook of patches, in the folder of the model that reads its codes."""
NETWORK = "vq-model"
"""The folder of a trained VQ model, in the same place."""
MOST_CODES, MOST_TOKENS = 2**16, 2**14

Pixels = npt.NDArray[np.uint8]


class Codebook(ABC):
    """Encodes square images as grids of codes, and decodes them.

    The codes of an image are in the order of reading: from left to right, then down.
    """

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of codes."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """The number of codes of an image."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The width and height of a decoded image, in pixels."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A hash of the codebook: two with the same digest give the same codes."""

    @abstractmethod
    def encode(self, image: Image | Pixels) -> list[int]:
        """The codes of an image.

        Args:
            image: In RGB, or pixels of shape (height, width, 3). Another size is scaled to that of
                the codebook.

        Raises:
            IwloraError: It is not square.
        """

    @abstractmethod
    def decode(self, codes: Sequence[int]) -> Pixels:
        """The image of some codes, (height, width, 3).

        Raises:
            IwloraError: The number of codes is another one, or a code is unknown.
        """

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None:
        """Write the codebook into a folder, which is made if it is missing."""

    def check(self, codes: Sequence[int]) -> None:
        """Raise ``IwloraError`` for codes that are not those of an image."""
        if len(codes) != self.tokens:
            raise IwloraError(
                f"{len(codes)} codes were given, and an image of this codebook has {self.tokens}"
            )
        unknown = [code for code in codes if not 0 <= code < self.count]
        if unknown:
            raise IwloraError(
                f"code {unknown[0]} is of another codebook: this one has the codes 0 to "
                f"{self.count - 1}"
            )


def pixels_of(image: Image | Pixels, size: int, channels: int) -> Pixels:
    """The pixels of a square image at another size, (size, size, channels).

    Raises:
        IwloraError: The image is not square.
    """
    from PIL import Image as images

    opened = images.fromarray(image) if isinstance(image, np.ndarray) else image
    if problem := not_square(*opened.size):
        raise IwloraError(f"an image {problem}")
    opened = opened.convert("L" if channels == 1 else "RGB")
    if opened.size != (size, size):
        opened = opened.resize((size, size), images.Resampling.BILINEAR)
    return np.asarray(opened, np.uint8).reshape(size, size, channels)


def not_square(width: int, height: int) -> str | None:
    """Why an image has no grid of codes; None for a square one."""
    if width == height:
        return None
    return f"of {width:,} × {height:,} pixels, which is not square; crop it"
