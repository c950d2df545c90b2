"""Augmented images are a function of their draw, and stay what their operations say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from iwlora.tasks.kinds.images.augmentation import OPERATIONS, augment

pytestmark = pytest.mark.quick


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


def test_each_operation_does_what_its_name_says() -> None:
    image = picture()
    before = np.asarray(image).astype(int)

    def after(name: str, seed: int = 1) -> Any:
        return np.asarray(OPERATIONS[name](image, np.random.default_rng(seed))).astype(int)

    for name in OPERATIONS:
        assert after(name).shape == before.shape
        assert (after(name) != before).any() == (name not in ("identity", "autocontrast"))
    assert (after("solarize") == np.where(before < 179, before, 255 - before)).all()
    assert (after("posterize") == before - before % 2).all()
    shift = round(150 / 331 * 0.3 * 40)
    moved = after("translate-x")
    assert abs(moved[:, shift:] - before[:, :-shift]).mean() < 90 or (
        abs(moved[:, :-shift] - before[:, shift:]).mean() < 90
    )
    brighter, darker = (before * 1.27).clip(0, 255), before * 0.73
    bright = after("brightness")
    assert min(abs(bright - brighter).max(), abs(bright - darker).max()) <= 1
