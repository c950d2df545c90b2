"""A folder of many images with some that cannot be used: does each ``task.on_bad`` do its part?

    python stress/bad_images.py                  # 10,000 images, 20 of them bad
    python stress/bad_images.py --images 200

Refuse and report must name the bad images, each with its file, and load nothing; skip must leave
out these and no other, and say so. The exit status is 1 if one does not. The processor time of each
is printed, and that of opening the images once more, as a run does.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from iwlora.errors import BadRowsError, IwloraError
from iwlora.inputs.images import image_bytes, open_image
from iwlora.tasks import TaskSpec, load

BAD = 20
CLASSES = ("disc", "ring", "square", "star")
SIDE = 24


def write_folder(folder: Path, images: int) -> set[str]:
    """Write class folders with so many images; returns the names of the bad ones."""
    random = np.random.default_rng(0)
    bad = {int(number): k for k, number in enumerate(random.choice(images, BAD, replace=False))}
    names = set()
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    for number in range(images):
        ending = ("png", "jpg", "bmp", "gif")[number % 4]
        name = f"{CLASSES[number % len(CLASSES)]}/{number:06}.{ending}"
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, {"jpg": "JPEG"}.get(ending, ending))
        content = stream.getvalue()
        if number in bad:
            content = DAMAGE[bad[number] % len(DAMAGE)](content)
            names.add(name)
        (folder / name).write_bytes(content)
    return names


def _bomb(_content: bytes) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    size = struct.pack(">I", len(header) - 4)
    return b"\x89PNG\r\n\x1a\n" + size + header + struct.pack(">I", zlib.crc32(header))


DAMAGE: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: b"no image",
    _bomb,
    lambda content: b"P6\n9999 2\n255\n" + bytes(9999 * 2 * 3),
)
"""What a bad image is: empty, cut, a text, a decompression bomb, a line."""


def problems(folder: Path, bad: set[str], images: int) -> list[str]:
    """What is wrong with how the folder is loaded, a line each."""
    found = []
    for on_bad in ("refuse", "report", "skip"):
        began = time.process_time()
        named, rows = set(), 0
        try:
            task = load(TaskSpec(train=str(folder), on_bad=on_bad), seed=0)
        except BadRowsError as error:
            rejected = error.rows
        else:
            rejected = task.bad_rows
            rows = sum(map(len, task.splits.values()))
        named = {row.place for row in rejected}
        if named != bad:
            found.append(f"{on_bad}: {len(named ^ bad)} images are wrongly named or not named")
        expected = images - len(bad) if on_bad == "skip" else 0
        if rows != expected:
            found.append(f"{on_bad}: {rows} images are loaded in place of {expected}")
        print(f"{on_bad}: {time.process_time() - began:.1f} s of processor time", flush=True)
    return found


def seconds_to_open(folder: Path) -> float:
    """The processor time of reading and decoding each image."""
    began = time.process_time()
    for file in folder.glob("*/*"):
        with suppress(IwloraError, ValueError):
            open_image(image_bytes(folder, str(file.relative_to(folder))))
    return time.process_time() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder, load it in each way, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="at least 100")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        bad = write_folder(folder, given.images)
        found = problems(folder, bad, given.images)
        print(f"opening once more: {seconds_to_open(folder):.1f} s of processor time")
    print("\n".join(found) or f"each of the {BAD} bad images is named, and no other")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
