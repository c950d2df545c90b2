"""The lines of a UTF-8 file, numbered, so that every error can name its line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from iwlora.errors import IwloraError
from iwlora.inputs.places import MOST_BYTES, open_file, reading_errors, user_path

_LAST_BYTES = 2**16
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each line of ``path``, without line end or byte-order mark.

    Only ``\\n`` and ``\\r\\n`` end a line: a text may contain other line separators of Unicode.
    Raises ``IwloraError`` for a file that is missing or empty, or a line that is not UTF-8.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "two.txt"
    >>> _ = file.write_bytes(BYTE_ORDER_MARK + b"one\\r\\ntwo")
    >>> list(read_lines(file))
    [(1, 'one'), (2, 'two')]
    """
    with open_file(user_path(path)) as stream, reading_errors(path):
        number = 0
        for number, raw in enumerate(_raw_lines(stream), start=1):
            if number == 1:
                raw = _without_mark(raw, path)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise IwloraError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x}, number "
                    f"{error.start + 1} of the line); save the file as UTF-8"
                ) from error
            yield number, text.removesuffix("\n").removesuffix("\r")
        if not number:
            raise IwloraError(f"{path} is empty")


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole text of ``path``, with ``\\n`` between lines; raises as :func:`read_lines`."""
    return "\n".join(line for _, line in read_lines(path))


def last_line(path: str | os.PathLike[str]) -> str:
    """The last line of a log that is not blank, however large the log is; "" for none.

    Raises ``IwloraError`` for a file that cannot be read.
    """
    with open_file(path) as stream, reading_errors(path):
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _LAST_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


def _raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; ``ValueError`` for one that would take too much memory."""
    longest = MOST_BYTES["line"]
    if 0 < os.fstat(stream.fileno()).st_size <= longest:
        yield from stream  # a little faster
        return
    for line in iter(partial(stream.readline, longest), b""):
        if len(line) == longest and not line.endswith(b"\n"):
            raise ValueError(f"a line is longer than {longest / 2**20:g} MiB")
        yield line


def _without_mark(line: bytes, path: str | os.PathLike[str]) -> bytes:
    """The first line without the byte-order mark of UTF-8; ``IwloraError`` for UTF-16 and 32."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise IwloraError(
            f"{path}, line 1: not UTF-8 (it looks like UTF-16); save the file as UTF-8"
        )
    return line.removeprefix(BYTE_ORDER_MARK)
