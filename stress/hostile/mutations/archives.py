"""Compressed files and spreadsheets that unpack into too much, lie about it, or point elsewhere."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random


def gzipped(file: Path, random: Random, _outside: Path) -> None:
    """A ``.gz`` file of gigabytes, cut short, with a wrong sum, or with something after its end."""
    whole = file.read_bytes()
    line = random.choice((b"a,pos\n", b"\0", b'{"text": "a"}\n', b'"'))
    changed = random.choice(
        (
            whole + _bomb(line) * 40,
            _bomb(line) * 40,
            whole[: random.randrange(len(whole))],
            whole[:-8] + bytes(8),
            whole + b"more",
            whole + whole,
            gzip.compress(whole, mtime=0),
            b"\x1f\x8b",
        )
    )
    file.write_bytes(changed)


def spreadsheet(file: Path, random: Random, outside: Path) -> None:
    """A spreadsheet with parts that unfold, are missing, damaged, or name files elsewhere."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError):  # an earlier change may leave no archive
        return
    content = "content.xml" if file.suffix == ".ods" else "xl/worksheets/sheet1.xml"
    name = random.choice((content, content, random.choice(list(parts) or [content])))
    how = random.choice(_CHANGES)
    text = parts.get(name, b"").decode("utf-8", "replace")
    parts[name] = how(text, outside / "secret.txt").encode("utf-8", "replace")
    if random.random() < 0.2:
        del parts[random.choice(list(parts))]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, data in parts.items():
            archive.writestr(zipfile.ZipInfo(part), data, zipfile.ZIP_DEFLATED)
        if random.random() < 0.2:
            name = random.choice(("../../out.xml", "/tmp/out.xml", "x" * 300))
            archive.writestr(zipfile.ZipInfo(name), "a")
    if random.random() < 0.2:
        size = len(parts.get(content, b"")).to_bytes(4, "little")
        file.write_bytes(file.read_bytes().replace(size, bytes([1, 0, 0, 0])))


@cache
def _bomb(line: bytes) -> bytes:
    """64 MiB in some ten kilobytes."""
    return gzip.compress(line * (2**26 // len(line)), compresslevel=6, mtime=0)


def _entities(text: str, _secret: Path) -> str:
    laughs = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 9))
    return _with_definitions(text, f'<!ENTITY e0 "ha">{laughs}', "&e8;")


def _file_of_others(text: str, secret: Path) -> str:
    return _with_definitions(text, f'<!ENTITY e8 SYSTEM "file://{secret}">', "&e8;")


def _with_definitions(text: str, definitions: str, used: str) -> str:
    head = f"<!DOCTYPE a [{definitions}]>"
    begun = re.sub(r"\A(<\?xml.*?\?>)?", lambda found: found[0] + head, text, count=1)
    return re.sub(r">[^<>]+</", f">{used}</", begun, count=1)


def _many_rows(text: str, _secret: Path) -> str:
    row = re.search(r"<(table:table-row|row)\b.*?</\1>", text, re.DOTALL)
    return text.replace(row[0], row[0] * 20_000, 1) if row else text * 3


def _repeated(text: str, _secret: Path) -> str:
    many = 'table:number-columns-repeated="99999999" table:number-rows-repeated="99999999"'
    return re.sub(r"<table:table-(cell|row)", rf"<table:table-\1 {many}", text)


def _far(text: str, _secret: Path) -> str:
    return re.sub(r' r="([A-Z]*)\d+"', r' r="\g<1>99999999"', text)


def _wide(text: str, _secret: Path) -> str:
    return re.sub(r' r="[A-Z]+(\d+)"', r' r="ZZZ\1"', text)


def _cut(text: str, _secret: Path) -> str:
    return text[: len(text) // 2]


def _deep(text: str, _secret: Path) -> str:
    return re.sub(r"<(text:p|is)>", lambda found: found[0] + "<text:span>" * 50_000, text)


_CHANGES: tuple[Callable[[str, Path], str], ...] = (
    _entities,
    _file_of_others,
    _many_rows,
    _repeated,
    _far,
    _wide,
    _cut,
    _deep,
)
