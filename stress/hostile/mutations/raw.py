"""Bytes of any file: cut short, flipped, doubled, of another format, in another encoding."""

from __future__ import annotations

from pathlib import Path
from random import Random

MAGIC = (
    *(b"", b"\0", b"\0" * 4096, b"\xff\xfe", b"\xef\xbb\xbf", b"\xff" * 64, b"{", b"[]", b"null"),
    *(b"PAR1", b"PAR1\0\0\0\0PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff\0\0\0\0", b"PK\x03\x04"),
    *(b"PK\x05\x06" + b"\0" * 18, b"\x93NUMPY\x01\x00", b"\x80\x04.", b"\x1f\x8b\x08", b"BZh9"),
    *(b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%PDF-1.7", b"\x7fELF"),
    *(
        b"#!/bin/sh\ntouch canary\n",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///'>]>",
    ),
    *(b"\x89HDF\r\n\x1a\n", b"SQLite format 3\0", b"GGUF", b"\x08\0\0\0\0\0\0\0{}      "),
)
"""How files of other formats begin, and files with nothing else."""


def damage(file: Path, random: Random, _outside: Path) -> None:
    """Change the bytes of a file somewhere."""
    whole = file.read_bytes()
    start = random.randint(0, len(whole))
    end = min(len(whole), start + random.choice((1, 1, 4, 40, 4000)))
    how = random.randrange(8)
    if how == 0:
        changed = whole[:start]
    elif how == 1:
        noise = bytes(byte ^ random.randrange(256) for byte in whole[start:end])
        changed = whole[:start] + noise + whole[end:]
    elif how == 2:
        changed = whole[:start] + random.choice(MAGIC) + whole[start:]
    elif how == 3:
        changed = whole[:start] + whole[start:end] * random.choice((2, 3, 1000)) + whole[end:]
    elif how == 4:
        changed = whole[:start] + whole[end:]
    elif how == 5:
        changed = whole + random.choice((whole, b"\0" * 8, random.choice(MAGIC)))
    elif how == 6:
        changed = random.choice(MAGIC)
    else:
        changed = random.randbytes(random.choice((1, 30, 3000)))
    file.write_bytes(changed)


def recode(file: Path, random: Random, _outside: Path) -> None:
    """The text of a file in another encoding, or with other line ends."""
    text = file.read_bytes().decode("utf-8", "replace")
    how = random.randrange(7)
    if how < 5:
        encoding = ("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "latin-1")[how]
        file.write_bytes(text.replace("e", "é", 1).encode(encoding, "replace"))
    else:
        file.write_bytes(text.replace("\n", ("\r", "\r\n")[how - 5]).encode())
