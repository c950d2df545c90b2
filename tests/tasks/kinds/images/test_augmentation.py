"""Augmented images are a function of their draw, and stay what their operations say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from iwlora.tasks.kinds.images import augmentation
from iwlora.tasks.kinds.images.augmentation import OPERATIONS, augment

pytestmark = pytest.mark.quick
GRAY = (128, 128, 128)


def picture() -> Any:
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_a_draw_decides_the_image() -> None:
    image = picture()
    draws = [(seed, epoch, row) for seed in (0, 1) for epoch in (0, 1) for row in (0, 1)]
    for name in ("flip-and-crop", "randaugment"):
        first, again = ([augment(image, name, draw).tobytes() for draw in draws] for _ in range(2))
        assert first == again
        assert len(set(first)) == len(draws)
    assert augment(image, "none", draws[0]) is image


def test_crops_are_parts_of_the_image_or_of_its_mirror_image() -> None:
    image = picture()
    both = [np.asarray(image), np.asarray(ImageOps.mirror(image))]
    mirrored, areas = [], []
    for row in range(60):
        part = np.asarray(augment(image, "flip-and-crop", (0, 0, row)))
        height, width = part.shape[:2]
        found = [_contains(whole, part) for whole in both]
        assert any(found)
        mirrored.append(found[1])
        areas.append(height * width / 1200)
        assert 0.7 < width / height < 1.4
    assert 15 < sum(mirrored) < 45
    assert 0.07 < min(areas) < 0.3
    assert max(areas) > 0.8


def _contains(whole: Any, part: Any) -> bool:
    height, width = part.shape[:2]
    places = np.argwhere((whole == part[0, 0]).all(axis=-1))
    return any(
        (whole[y : y + height, x : x + width].shape == part.shape)
        and (whole[y : y + height, x : x + width] == part).all()
        for y, x in places
    )


def outcomes(name: str, image: Any) -> list[Any]:
    """What an operation makes of an image: one picture, or one for each direction."""
    made = {OPERATIONS[name](image, np.random.default_rng(seed)).tobytes() for seed in range(12)}
    return [np.frombuffer(b, np.uint8).reshape(image.height, image.width, 3) for b in made]


def both(one: Any, other: Any) -> list[Any]:
    return [np.asarray(one), np.asarray(other)]


def expected(name: str, image: Any) -> list[Any]:
    """The same by Pillow or in closed form, at magnitude 9 of 30."""
    before = np.asarray(image).astype(int)
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        enhancer = enhancers[name](image)
        return both(enhancer.enhance(1.27), enhancer.enhance(0.73))
    if name == "rotate":
        turned = [image.rotate(d, Image.Resampling.BILINEAR, fillcolor=GRAY) for d in (9, -9)]
        return both(*turned)
    if name.startswith(("shear", "translate")):
        return [sampled(before, name, sign) for sign in (1, -1)]
    return [
        {
            "identity": before,
            "posterize": before // 2 * 2,  # 8 - 4 · 0.3 ≈ 7 bits
            "solarize": np.where(before < 179, before, 255 - before),  # 256 · 0.7 = 179.2
            "autocontrast": np.asarray(ImageOps.autocontrast(image)),
            "equalize": np.asarray(ImageOps.equalize(image)),
        }[name]
    ]


def sampled(before: Any, name: str, sign: int) -> Any:
    """Bilinear samples at the moved centers of the pixels; gray outside of the image."""
    height, width = before.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    shift = {
        "shear-x": (0.09 * y, 0),
        "shear-y": (0, 0.09 * x),
        "translate-x": (150 / 331 * 0.3 * width, 0),
        "translate-y": (0, 150 / 331 * 0.3 * height),
    }[name]
    x, y = x + sign * shift[0], y + sign * shift[1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - left)[..., None], (y - top)[..., None]

    def at(row: Any, column: Any) -> Any:
        return before[row.clip(0, height - 1), column.clip(0, width - 1)]

    upper = at(top, left) * (1 - fx) + at(top, left + 1) * fx
    lower = at(top + 1, left) * (1 - fx) + at(top + 1, left + 1) * fx
    return np.where(inside[..., None], upper * (1 - fy) + lower * fy, GRAY)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_each_operation_is_that_of_pillow_or_its_closed_form(name: str) -> None:
    values = np.random.default_rng(0).integers(30, 220, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    made, wanted = outcomes(name, image), expected(name, image)
    assert len(made) == len(wanted)
    for truth in wanted:
        assert min(abs(one.astype(float) - truth).max() for one in made) <= 1


def test_the_operations_are_those_of_randaugment_drawn_evenly() -> None:
    assert len(OPERATIONS) == 14
    drawn = Counter[str]()
    tracked = {
        name: lambda image, random, name=name: (drawn.update([name]), image)[1]
        for name in OPERATIONS
    }
    image = Image.new("RGB", (4, 4))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(augmentation, "OPERATIONS", tracked)
        for row in range(1400):
            augment(image, "randaugment", (0, 0, row))
    assert sum(drawn.values()) == 2800
    assert all(140 < count < 260 for count in drawn.values())  # 200 ± 4 standard deviations


def test_areas_and_ratios_of_crops_are_uniform_within_their_bounds() -> None:
    """On a square, ratios outside of 3:4 to 4:3 cannot be and most draws fit, so the area is
    uniform below 3/4, where each ratio fits; the logarithm of the ratio is uniform."""
    image = Image.new("RGB", (400, 400))
    sizes = np.array([augment(image, "flip-and-crop", (0, 1, row)).size for row in range(2000)])
    areas, ratios = sizes.prod(axis=1) / 160_000, sizes[:, 0] / sizes[:, 1]
    assert 0.079 < areas.min() < 0.09
    assert areas.max() > 0.97
    assert 0.745 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.34
    small = areas < 0.75
    for drawn in ((areas[small] - 0.08) / 0.67, np.log(ratios[small]) / np.log(16 / 9) + 0.5):
        counts = np.histogram(drawn, bins=5, range=(0, 1))[0]
        assert abs(counts / small.sum() - 0.2).max() < 0.045  # 4 standard deviations


@pytest.mark.parametrize(("size", "crop"), [((300, 10), (13, 10)), ((10, 300), (10, 13))])
def test_of_a_long_image_the_middle_is_taken(size: tuple[int, int], crop: tuple[int, int]) -> None:
    """At most 1 of 10 draws fits, so that some rows have none: they get the middle."""
    values = np.arange(300, dtype=np.int64).reshape(1, 300) % 256
    pixels = np.broadcast_to(values if size[0] == 300 else values.T, size[::-1]).astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    middle = (300 - 13) // 2
    box = (middle, 0, middle + 13, 10) if size[0] == 300 else (0, middle, 10, middle + 13)
    truth = image.crop(box)
    made = [augment(image, "flip-and-crop", (0, 0, row)) for row in range(30)]
    accepted = {truth.tobytes(), ImageOps.mirror(truth).tobytes()}
    assert all(one.size == crop and one.tobytes() in accepted for one in made)
