"""The script on bad images: it passes on a small folder, and notices a missing name."""

from __future__ import annotations

from pathlib import Path

import pytest

import bad_images

pytestmark = pytest.mark.quick


def test_every_bad_image_is_named_and_no_other(tmp_path: Path) -> None:
    bad = bad_images.write_folder(tmp_path / "images", 100)
    assert len(bad) == bad_images.BAD
    assert bad_images.problems(tmp_path / "images", bad, 100) == []
    bad.pop()
    assert bad_images.problems(tmp_path / "images", bad, 100) == [
        "refuse: 1 images are wrongly named or not named",
        "report: 1 images are wrongly named or not named",
        "skip: 1 images are wrongly named or not named",
        "skip: 80 images are loaded in place of 81",
    ]
