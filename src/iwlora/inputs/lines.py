"""The lines of a UTF-8 file, numbered, so that every error can name its line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from iwlora.errors import IwloraError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def user_path(path: str | Path) -> Path:
    """``path`` with ``~`` expanded; the home of an unknown user stays as it is written.

    >>> user_path("~nobody-of-this-name/a.csv").as_posix()
    '~nobody-of-this-name/a.csv'
    """
    return Path(os.path.expanduser(path))


def readable_file(path: str | Path) -> Path:
    """``path`` as a readable file that is not empty, ``~`` expanded.

    Raises ``IwloraError`` if it is missing, a folder, not readable or empty.

    >>> readable_file("no/such.csv")
    Traceback (most recent call last):
    iwlora.errors.IwloraError: cannot read no/such.csv: No such file or directory
    """
    file = user_path(path)
    try:
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise IwloraError(f"cannot read {path}: {error.strerror}") from error
    if empty:
        raise IwloraError(f"{path} is empty")
    return file


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each line of ``path``, without line end or byte-order mark.

    Only ``\\n`` and ``\\r\\n`` end a line: a text may contain other line separators of Unicode.
    Raises ``IwloraError`` for a file that is missing or empty, or a line that is not UTF-8.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "two.txt"
    >>> _ = file.write_bytes(BYTE_ORDER_MARK + b"one\\r\\ntwo")
    >>> list(read_lines(file))
    [(1, 'one'), (2, 'two')]
    """
    with readable_file(path).open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                raw = raw.removeprefix(BYTE_ORDER_MARK)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise IwloraError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x}, number "
                    f"{error.start + 1} of the line); save the file as UTF-8"
                ) from error
            yield number, text.removesuffix("\n").removesuffix("\r")


def read_text(path: str | Path) -> str:
    """The whole text of ``path``, with ``\\n`` between lines; raises as :func:`read_lines`."""
    return "\n".join(line for _, line in read_lines(path))
