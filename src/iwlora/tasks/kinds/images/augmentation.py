"""Random changes of training images, in Pillow and NumPy; each is a function of its draw alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Augmentation = Literal["none", "flip-and-crop", "randaugment"]

_LEAST_AREA, _RATIOS, _TRIES = 0.08, (3 / 4, 4 / 3), 10
_OPERATIONS, _STRENGTH = 2, 9 / 30
"""RandAugment's N = 2 operations, at its magnitude M = 9 of 30."""
_GRAY = (128, 128, 128)

Random = np.random.Generator
Operation = Callable[[Any, Random], Any]


def augment(image: Image, augmentation: Augmentation, draw: tuple[int, int, int]) -> Image:
    """An image as it is trained on in one epoch.

    Args:
        image: In RGB.
        augmentation: flip-and-crop: a part of 8% to 100% of the area, with sides of 3:4 to 4:3, and
            its mirror image half of the time; randaugment: the same, and two of 14 operations.
        draw: The seed of the run, the epoch and the row. The same draw makes the same image, in
            any process and after a resume.

    Source:
        Szegedy et al. 2015, arXiv:1409.4842 (crop); Cubuk et al. 2020, arXiv:1909.13719.

    Example:
        >>> from PIL import Image
        >>> image = Image.effect_noise((40, 30), 50).convert("RGB")
        >>> one, same, other = (
        ...     augment(image, "randaugment", (0, epoch, 7)).tobytes() for epoch in (1, 1, 2)
        ... )
        >>> one == same, one == other
        (True, False)
    """
    if augmentation == "none":
        return image
    random = np.random.default_rng(draw)
    image = _flipped(_cropped(image, random), random)
    if augmentation == "randaugment":
        for name in random.choice(sorted(OPERATIONS), _OPERATIONS):
            image = OPERATIONS[str(name)](image, random)
    return image


def _cropped(image: Image, random: Random) -> Image:
    """A part of the image; the middle of one for which no part of the allowed shape was drawn."""
    width, height = image.size
    low, high = map(math.log, _RATIOS)
    for _ in range(_TRIES):
        area, ratio = random.uniform(_LEAST_AREA, 1) * width * height, random.uniform(low, high)
        across = round(math.sqrt(area * math.exp(ratio)))
        down = round(math.sqrt(area / math.exp(ratio)))
        if 0 < across <= width and 0 < down <= height:
            left = int(random.integers(0, width - across + 1))
            top = int(random.integers(0, height - down + 1))
            return image.crop((left, top, left + across, top + down))
    across = min(width, round(height * _RATIOS[1]))
    down = min(height, round(width / _RATIOS[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def _flipped(image: Image, random: Random) -> Image:
    from PIL import ImageOps

    return ImageOps.mirror(image) if random.random() < 0.5 else image


def _either(value: float, random: Random) -> float:
    return value if random.random() < 0.5 else -value


def _moved(image: Image, matrix: tuple[float, ...]) -> Image:
    """x ↦ a x + b y + c, y ↦ d x + e y + f, from places in the result to places in the image."""
    from PIL import Image as images

    how, pixels = images.Transform.AFFINE, images.Resampling.BILINEAR
    return image.transform(image.size, how, matrix, resample=pixels, fillcolor=_GRAY)


def _shear_x(image: Image, random: Random) -> Image:
    return _moved(image, (1, _either(0.3 * _STRENGTH, random), 0, 0, 1, 0))


def _shear_y(image: Image, random: Random) -> Image:
    return _moved(image, (1, 0, 0, _either(0.3 * _STRENGTH, random), 1, 0))


def _translate_x(image: Image, random: Random) -> Image:
    pixels = _either(150 / 331 * _STRENGTH, random) * image.width
    return _moved(image, (1, 0, pixels, 0, 1, 0))


def _translate_y(image: Image, random: Random) -> Image:
    pixels = _either(150 / 331 * _STRENGTH, random) * image.height
    return _moved(image, (1, 0, 0, 0, 1, pixels))


def _rotate(image: Image, random: Random) -> Image:
    from PIL import Image as images

    degrees = _either(30 * _STRENGTH, random)
    return image.rotate(degrees, images.Resampling.BILINEAR, fillcolor=_GRAY)


def _enhanced(name: str) -> Operation:
    def operation(image: Image, random: Random) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(1 + _either(0.9 * _STRENGTH, random))

    return operation


def _of_levels(name: str, *arguments: Any) -> Operation:
    def operation(image: Image, random: Random) -> Any:
        from PIL import ImageOps

        return getattr(ImageOps, name)(image, *arguments)

    return operation


OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda image, random: image,
    "shear-x": _shear_x,
    "shear-y": _shear_y,
    "translate-x": _translate_x,
    "translate-y": _translate_y,
    "rotate": _rotate,
    "brightness": _enhanced("Brightness"),
    "color": _enhanced("Color"),
    "contrast": _enhanced("Contrast"),
    "sharpness": _enhanced("Sharpness"),
    "posterize": _of_levels("posterize", 8 - round(4 * _STRENGTH)),
    "solarize": _of_levels("solarize", round(256 * (1 - _STRENGTH))),
    "autocontrast": _of_levels("autocontrast"),
    "equalize": _of_levels("equalize"),
}
"""The operations of RandAugment, at its strength; those with a direction draw it."""
