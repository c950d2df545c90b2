"""Images that ask for much, or that are something else: by the rules of their formats."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from random import Random

_OTHER = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file\n",
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    b"%PDF-1.4\n1 0 obj <</Type /Catalog /OpenAction <</S /JavaScript>>>>\n",
    b"push graphic-context\nimage over 0,0 0,0 '|touch canary'\npop graphic-context\n",
    b"P6\n99999 99999\n255\n",
    b"P5\n-1 4\n255\n....",
    b"P3\n2 2\n99999999\n1 2 3",
    b"\x80\x02cos\nsystem\n(S'touch canary'\ntR.",
)
_SIZES = (0, 1, 2**13, 2**16, 2**31 - 1, 2**32 - 1)


def image(file: Path, random: Random, _outside: Path) -> None:
    """Another size in the header, chunks that unfold, frames without end, another format."""
    content, how = file.read_bytes(), random.randrange(6)
    if how == 0:
        content = random.choice(_OTHER)
    elif how == 1:
        content = content[: random.randrange(len(content))]
    elif how == 2 and content.startswith(b"GIF"):
        frames = content[content.find(b",") : -1] * random.choice((2, 5_000))
        content = content[: content.find(b",")] + frames + b";"
    elif content.startswith(b"\x89PNG"):
        content = _png(content, random)
    elif content.startswith(b"\xff\xd8"):
        content = _jpeg(content, random)
    else:
        place = random.randrange(2, min(len(content), 40))
        size = struct.pack(random.choice("<>") + "I", random.choice(_SIZES))
        content = content[:place] + size + content[place + 4 :]
    file.write_bytes(content)


def _png(content: bytes, random: Random) -> bytes:
    """With another size, or with a chunk before the pixels."""
    end = 8 + 25  # of the header
    if random.random() < 0.5:
        sides = struct.pack(">II", random.choice(_SIZES), random.choice(_SIZES))
        return content[:8] + _chunk(b"IHDR", sides + content[24:29]) + content[end:]
    unfolding = zlib.compress(bytes(random.choice((10**3, 5 * 10**7))))
    chunks = {
        b"zTXt": b"Comment\0\0" + unfolding,
        b"iTXt": b"Comment\0\1\0\0\0" + unfolding,
        b"iCCP": b"icc\0\0" + unfolding,
        b"eXIf": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(24),
        b"acTL": struct.pack(">II", 2**31 - 1, 0),
        b"PLTE": bytes(3 * 256),
    }
    name = random.choice(sorted(chunks))
    return content[:end] + _chunk(name, chunks[name]) + content[end:]


def _jpeg(content: bytes, random: Random) -> bytes:
    """With another size, with EXIF whose places lead in circles, or with segments without end."""
    how = random.randrange(3)
    start = content.find(b"\xff\xc0")
    if how == 0 and start > 0:
        sides = struct.pack(">HH", random.choice((0, 65535)), random.choice((0, 65535)))
        return content[: start + 5] + sides + content[start + 9 :]
    if how == 1:
        circle = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1)
        circle += struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
        return content[:2] + _segment(0xE1, circle) + content[2:]
    return content[:2] + _segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000)) * 50 + content[2:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data
