"""Images of every sort become RGB, or are refused with a reason."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from iwlora.errors import IwloraError
from iwlora.inputs import images
from iwlora.inputs.images import image_bytes, open_image

pytestmark = pytest.mark.quick


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def first_pixel(content: bytes) -> Any:
    return open_image(content)[0].getpixel((0, 0))


def test_every_mode_becomes_rgb() -> None:
    gray = Image.new("L", (3, 2), 200)
    assert first_pixel(encoded(gray)) == (200, 200, 200)
    assert first_pixel(encoded(Image.new("1", (3, 2), 1))) == (255, 255, 255)
    assert first_pixel(encoded(Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    red = Image.new("RGB", (3, 2), (250, 10, 20))
    assert first_pixel(encoded(red.convert("P", palette=Image.Palette.ADAPTIVE))) == (250, 10, 20)
    image, facts = open_image(encoded(red))
    assert (image.mode, facts.mode, facts.width, facts.height) == ("RGB", "RGB", 3, 2)


def test_of_16_bits_the_upper_8_are_kept() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    image, facts = open_image(encoded(Image.fromarray(values)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert facts.mode.startswith("I")


def test_what_is_transparent_becomes_white() -> None:
    assert first_pixel(encoded(Image.new("RGBA", (3, 2), (0, 0, 0, 0)))) == (255, 255, 255)
    half = first_pixel(encoded(Image.new("LA", (3, 2), (0, 128))))
    assert half == (127, 127, 127)
    palette = Image.new("P", (3, 2), 0)
    palette.putpalette([9, 9, 9])
    assert first_pixel(encoded(palette, transparency=0)) == (255, 255, 255)


def test_the_orientation_of_the_camera_is_applied() -> None:
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    upright, facts = open_image(encoded(image, exif=exif))
    assert (facts.width, facts.height) == upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image, facts = open_image(content)
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert facts.frames == 2


def test_damaged_and_foreign_files_are_refused() -> None:
    whole = encoded(Image.effect_noise((64, 64), 90), "JPEG")
    for content, problem in (
        (whole[: len(whole) // 2], "truncated"),
        (whole[:20], "no image of a format|cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a format"),
        (b"", "no image of a format"),
        (encoded(Image.new("F", (3, 2)), "TIFF"), "fractional"),
        (encoded(Image.new("L", (900, 2))), "as long as wide"),
    ):
        with pytest.raises(ValueError, match=problem):
            open_image(content)


def test_a_decompression_bomb_is_not_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"IHDR" + pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    bomb = encoded(Image.new("1", (1, 1)))
    start = bomb.index(b"IHDR")
    bomb = bomb[:start] + header + pack(">I", crc32(header)) + bomb[start + len(header) + 4 :]
    with pytest.raises(ValueError, match=r"20,000 × 20,000 pixels; at most 67,108,864|bomb"):
        open_image(bomb)
    monkeypatch.setattr(images, "MOST_PIXELS", 5)
    with pytest.raises(ValueError, match="at most 5 are read"):
        open_image(encoded(Image.new("L", (3, 2))))


def test_files_are_found_inside_of_a_folder_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b.png").write_bytes(encoded(Image.new("L", (3, 2))))
    (tmp_path / "a" / "empty.png").touch()
    assert open_image(image_bytes(tmp_path, "b.png"))[1].mode == "L"
    for folder, name, problem in (
        ("a", "../b.png", "leads out of"),
        ("a", "c.png", "no such file"),
        ("a", "empty.png", "is empty"),
        (".", "a", "it is a folder"),
    ):
        with pytest.raises(IwloraError, match=problem):
            image_bytes(tmp_path / folder, name)
