"""Images of others, opened by Pillow: within limits, and all as RGB.

Pillow is imported when an image is opened: what reads tables needs none.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iwlora.errors import IwloraError
from iwlora.inputs.places import inside, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
"""Of the files that a folder of images lists."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are opened, whatever the ending of the file."""
MOST_PIXELS = 2**26
"""Of an image: as RGB they take 192 MiB. A file of a few bytes may unfold into far more."""
MOST_ASPECT_RATIO = 200
"""Of an image: a longer one would be scaled to a line."""


@dataclass(frozen=True)
class ImageFacts:
    """What an image was before it became RGB.

    Args:
        digest: SHA-256 of the bytes of its file, in hexadecimal.
        width: In pixels, upright.
        height: In pixels, upright.
        mode: Pillow's name of how a pixel is stored, such as ``L`` for gray.
        frames: 1, but for animations and files of several pages.
        largest: The largest value of an image of 16 bits for a pixel; None of any other image.
    """

    digest: str
    width: int
    height: int
    mode: str
    frames: int
    largest: int | None = None

    def stored(self, name: str, content: bytes | None = None, folder: str = "") -> dict[str, Any]:
        """What tables of a task keep of an image: its bytes, or the folder and the name of its
        file."""
        place = {"folder": folder, "name": name, "bytes": content}
        size = {"width": self.width, "height": self.height}
        rest = {"mode": self.mode, "frames": self.frames, "largest": self.largest}
        return {**place, **size, **rest}


def image_bytes(folder: str | Path, name: str) -> bytes:
    """The content of an image file that a row names, which must lie in the folder of the table.

    Raises:
        IwloraError: It leads out of the folder, is missing, too large, or no regular file.
    """
    content = read_bytes(inside(folder, name), "image")
    if not content:
        raise IwloraError(f"{Path(folder, name)} is empty")
    return content


def open_image(content: bytes) -> tuple[Image, ImageFacts]:
    """The first frame of an image as RGB, upright, and what it was before.

    The orientation that a camera noted (EXIF) is applied. Gray becomes three equal channels; of 16
    bits the upper 8 are kept; what is transparent becomes white; palettes and CMYK are converted
    as Pillow does it.

    Raises:
        ValueError: It cannot be used; the message completes "column X ...".

    >>> from io import BytesIO
    >>> from PIL import Image
    >>> stream = BytesIO()
    >>> Image.new("L", (4, 2), 128).save(stream, "PNG")
    >>> image, facts = open_image(stream.getvalue())
    >>> image.getpixel((0, 0)), image.size, facts.mode
    ((128, 128, 128), (4, 2), 'L')
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow's own limit is above ours, and damaged EXIF is no reason to refuse pixels.
            warnings.simplefilter("ignore")
            opened = Image.open(BytesIO(content), formats=FORMATS)
            _check_size(*opened.size)
            mode, frames = opened.mode, int(getattr(opened, "n_frames", 1))
            opened.seek(0)
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            image: Image.Image = _as_rgb(upright)
            largest = int(np.max(np.asarray(opened))) if mode.startswith("I") else None
    except (_Unusable, MemoryError):
        raise
    except UnidentifiedImageError:
        accepted = ", ".join(FORMATS)
        raise ValueError(f"holds no image of a format that is read ({accepted})") from None
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"holds an image that cannot be read: {reason}") from None
    width, height = image.size
    digest = hashlib.sha256(content).hexdigest()
    return image, ImageFacts(digest, width, height, mode, frames, largest)


class _Unusable(ValueError):
    """An image that is whole, and that is refused."""


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _Unusable(
            f"holds an image of {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are read "
            "(a small file may unfold into more than the memory holds); scale it down"
        )
    if max(width, height) > MOST_ASPECT_RATIO * min(width, height):
        raise _Unusable(
            f"holds an image of {width:,} × {height:,} pixels, more than {MOST_ASPECT_RATIO} times "
            "as long as wide; cut it"
        )


def _as_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray(_upper_bits(image)).convert("RGB")
    if image.mode == "F":
        raise _Unusable(
            "holds an image of fractional numbers, of which none says how bright it is; save it "
            "with 8 or 16 bits"
        )
    is_transparent = (
        image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    )
    if not is_transparent:
        return image if image.mode == "RGB" else image.convert("RGB")
    with_alpha = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, with_alpha).convert("RGB")


def _upper_bits(image: Any) -> Any:
    """Of 16 bits for a pixel, the upper 8."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise _Unusable("holds an image with more than 16 bits for a pixel; save it with 8 or 16")
    return (values.astype(np.uint32) >> 8).astype(np.uint8)
