"""The lines of a text file, numbered, so that errors can name them; ``.gz`` is unpacked."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

from iwlora.errors import IwloraError
from iwlora.inputs.limits import check_growth
from iwlora.inputs.places import MOST_BYTES, open_file, reading_errors, user_path

_LAST_BYTES = 2**16
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
CHUNK = 2**20


def read_lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each line of ``path``, without line end or byte-order mark.

    Only ``\\n`` and ``\\r\\n`` end a line: a text may contain other line separators of Unicode.
    Raises ``IwloraError`` for a file that is missing or empty, or a line that is not in the
    encoding.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "two.txt"
    >>> _ = file.write_bytes(BYTE_ORDER_MARK + b"one\\r\\ntwo")
    >>> list(read_lines(file))
    [(1, 'one'), (2, 'two')]
    """
    with open_bytes(path) as stream:
        number = 0
        is_utf8 = codecs.lookup(encoding).name == "utf-8"  # of its other names too
        lines = _utf8_lines(stream, path) if is_utf8 else _lines(stream, encoding, path)
        for number, text in enumerate(lines, start=1):
            yield number, text.removesuffix("\n").removesuffix("\r")
        if not number:
            raise IwloraError(f"{path} is empty")


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole text of ``path``, with ``\\n`` between lines; raises as :func:`read_lines`."""
    return "\n".join(line for _, line in read_lines(path))


def read_chunks(path: str | os.PathLike[str], encoding: str = "utf-8") -> Iterator[str]:
    """The text of ``path`` in parts, for texts that lines do not divide.

    Raises ``IwloraError`` as :func:`read_lines`.
    """
    with (
        open_bytes(path) as stream,
        _decoding_errors(path, encoding),
        io.TextIOWrapper(stream, encoding, newline="") as text,
    ):
        yield from iter(partial(text.read, CHUNK), "")


def last_line(path: str | os.PathLike[str]) -> str:
    """The last line of a log that is not blank, however large the log is; "" for none.

    Raises ``IwloraError`` for a file that cannot be read.
    """
    with open_file(path) as stream, reading_errors(path):
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _LAST_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


@contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The bytes of a regular file; of one whose name ends in ``.gz``, those that it unpacks into.

    Raises ``IwloraError`` where it cannot be read, and where it unpacks into far too much.
    """
    with open_file(user_path(path)) as stream, reading_errors(path):
        if not os.fspath(path).lower().endswith(".gz"):
            yield stream
            return
        size = os.fstat(stream.fileno()).st_size
        try:
            yield io.BufferedReader(_Unpacked(stream, str(path), size))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise IwloraError(f"{path} is not a .gz file that can be unpacked: {error}") from error


class _Unpacked(io.RawIOBase):
    """The content of a compressed stream, as long as it is not far larger than its file."""

    def __init__(self, stream: BinaryIO, path: str, size: int) -> None:
        self._inner, self._path, self._size = gzip.GzipFile(fileobj=stream), path, size
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._inner.read(len(buffer))
        self._total += len(content)
        check_growth(self._path, self._total, self._size)
        buffer[: len(content)] = content
        return len(content)


def _utf8_lines(stream: BinaryIO, path: str | os.PathLike[str]) -> Iterator[str]:
    for number, raw in enumerate(_raw_lines(stream), start=1):
        if number == 1:
            raw = _without_mark(raw, path)
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise IwloraError(
                f"{path}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x}, number "
                f"{error.start + 1} of the line); save the file as UTF-8"
            ) from error


def _lines(stream: BinaryIO, encoding: str, path: str | os.PathLike[str]) -> Iterator[str]:
    longest = MOST_BYTES["line"]
    with _decoding_errors(path, encoding), io.TextIOWrapper(stream, encoding, newline="\n") as text:
        for number, line in enumerate(iter(partial(text.readline, longest), ""), start=1):
            if len(line) == longest and not line.endswith("\n"):
                raise ValueError(f"a line is longer than {longest / 2**20:g} MiB")
            yield line.removeprefix("\ufeff") if number == 1 else line


@contextmanager
def _decoding_errors(path: str | os.PathLike[str], encoding: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise IwloraError(
            f"{path} is not in the encoding {encoding}: {error}; give task.encoding, or save the "
            "file as UTF-8"
        ) from error


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; ``ValueError`` for one that would take too much memory."""
    longest = MOST_BYTES["line"]
    is_plain = not isinstance(stream, io.BufferedReader) or not isinstance(stream.raw, _Unpacked)
    if is_plain and 0 < os.fstat(stream.fileno()).st_size <= longest:
        yield from stream  # a little faster
        return
    for line in iter(partial(stream.readline, longest), b""):
        if len(line) == longest and not line.endswith(b"\n"):
            raise ValueError(f"a line is longer than {longest / 2**20:g} MiB")
        yield line


def _without_mark(line: bytes, path: str | os.PathLike[str]) -> bytes:
    """The first line without the byte-order mark of UTF-8; ``IwloraError`` for UTF-16 and 32."""
    if line.startswith(UTF_16_MARKS) or b"\0" in line:
        raise IwloraError(
            f"{path}, line 1: not UTF-8 (it looks like UTF-16); save the file as UTF-8"
        )
    return line.removeprefix(BYTE_ORDER_MARK)
