"""Where a file from outside may lie, and what it may be: a regular file in the named folder."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from iwlora.errors import IwloraError

MOST_BYTES: Mapping[str, int] = {
    "YAML": 2**18,  # its parser reads about 100 KB in a second
    "JSON": 2**26,  # 64 MiB of empty objects take 1.7 GB of memory
    "text": 2**28,  # logs, and texts of data sets that are read at once
    "line": 2**26,  # of a table or a log that is read line by line
    "image": 2**26,  # a photograph has some MB
    "thumbnail": 2**16,
    "standard input": 2**30,  # which is kept on the disk while it is read
}
"""The most bytes of a file of each kind. Tables and weights have no limit: they are streamed."""

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)
_FIRST_BYTES = 2**16
# Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def user_path(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` expanded; the home of an unknown user stays as it is written.

    >>> user_path("~nobody-of-this-name/a.csv").as_posix()
    '~nobody-of-this-name/a.csv'
    """
    return Path(os.path.expanduser(path))


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A file, open for reading; the path itself may be a link.

    Raises ``IwloraError`` if it is missing, not readable, or no regular file: a pipe, a socket or a
    device could wait for ever, or give bytes without end.

    >>> open_file("/dev/zero")
    Traceback (most recent call last):
    iwlora.errors.IwloraError: cannot read /dev/zero: it is a device, not a regular file
    """
    with reading_errors(path):
        _check_regular(path, os.stat(path))  # opening a device can already change it
        stream = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
        try:
            _check_regular(path, os.fstat(stream.fileno()))  # it may be another one by now
        except IwloraError:
            stream.close()
            raise
    return stream


def regular_file(path: str | os.PathLike[str]) -> Path:
    """``path`` for a library that opens files itself, ``~`` expanded; raises as :func:`open_file`.

    An empty file is refused too.
    """
    file = user_path(path)
    with open_file(file) as stream:
        if not stream.read(1):
            raise IwloraError(f"{path} is empty")
    return file


def read_bytes(path: str | os.PathLike[str], kind: str) -> bytes:
    """The content of a file of a kind in ``MOST_BYTES``.

    Raises ``IwloraError`` as :func:`open_file`, and for a file that is larger.
    """
    with open_file(path) as stream, reading_errors(path):
        content = stream.read(MOST_BYTES[kind] + 1)
    if len(content) > MOST_BYTES[kind]:
        raise IwloraError(
            f"cannot read {path}: it is larger than {MOST_BYTES[kind] / 2**20:g} MiB, the most "
            f"that is read of a {kind} file"
        )
    return content


@contextmanager
def standard_input_file(ending: Callable[[bytes], str]) -> Iterator[Path]:
    """What standard input gives, as a file until the block ends.

    An ``IwloraError`` of the block names standard input where it would name the file. Raises one
    for more than ``MOST_BYTES["standard input"]``: a pipe may give bytes without end.

    Args:
        ending: Gives the ending of the file's name from the first bytes.
    """
    name, most = "standard input", MOST_BYTES["standard input"]
    with tempfile.TemporaryDirectory() as folder, reading_errors(name):
        if sys.stdin is None:
            raise IwloraError(f"cannot read {name}: it is closed")
        source = sys.stdin.buffer
        first = source.read(_FIRST_BYTES)
        path = Path(folder, f"input{ending(first)}")
        with path.open("wb") as file:
            size = file.write(first)
            while chunk := source.read(_FIRST_BYTES):
                size += file.write(chunk)
                if size > most:
                    raise IwloraError(
                        f"cannot read {name}: it gives more than {most / 2**20:g} MiB; write a "
                        "file, and give its name"
                    )
        try:
            yield path
        except IwloraError as error:
            raise IwloraError(str(error).replace(str(path), name)) from error


def inside(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of a file in a folder, for a name that stands in one of the folder's files.

    Raises ``IwloraError`` for a name that leads out of the folder, itself or through links.

    >>> inside("runs/a", "../b")
    Traceback (most recent call last):
    iwlora.errors.IwloraError: '../b' leads out of runs/a; names in it must stay inside
    """
    path = Path(folder, name)
    try:
        stays = stays_inside(path, Path(folder).resolve())
    except (OSError, ValueError, RuntimeError):  # no system has a file of this name
        stays = False
    if not stays:
        raise IwloraError(f"{name!r} leads out of {folder}; names in it must stay inside")
    return path


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise ``IwloraError`` for a link in a folder that leads out of it, and for pipes and devices.

    Reading or writing through such a link would reach files of somebody else. The folder itself may
    be a link, which its user named. In the hub's cache the files of ``snapshots/REVISION`` are
    links to ``blobs``, which are accepted.
    """
    root = Path(folder).resolve()
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                if not stays_inside(path, root):
                    raise IwloraError(
                        f"{path} is a symbolic link that leads out of {folder}, to "
                        f"{os.path.realpath(path)}; remove it, or replace it by a copy of what it "
                        "leads to"
                    )
                if os.path.islink(os.path.realpath(path)):
                    raise IwloraError(f"{path} is a symbolic link that leads to itself; remove it")
            elif not stat.S_ISDIR(status.st_mode):
                _check_regular(path, status)


def entries(folder: str | os.PathLike[str]) -> list[Path]:
    """What is in a folder, sorted; nothing if there is no such folder.

    Raises ``OSError`` for one that cannot be read, which ``Path.glob`` takes for an empty one.
    """
    try:
        return [Path(folder, name) for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_below(folder: str | os.PathLike[str]) -> list[Path]:
    """The files in a folder and in its folders, sorted; raises as :func:`entries`."""
    paths = (Path(p, name) for p, _, names in os.walk(folder, onerror=_raise) for name in names)
    return sorted(path for path in paths if path.is_file())


@contextmanager
def reading_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise ``IwloraError`` for whatever goes wrong with the file at ``path`` in the block."""
    try:
        yield
    except IwloraError:
        raise
    except FileNotFoundError:
        raise IwloraError(f"cannot read {path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no system accepts
        reason = getattr(error, "strerror", None) or error
        raise IwloraError(f"cannot read {path}: {reason}") from error


def _open_at_once(path: str, _flags: int) -> int:
    return os.open(path, _FLAGS)


def _check_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
        raise IwloraError(f"cannot read {path}: it is {kind}, not a regular file")


def _raise(error: OSError) -> None:
    """For ``os.walk``, which passes over a folder that cannot be read; a file has nothing in it."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def stays_inside(path: Path, root: Path) -> bool:
    """Whether a path leads to a place below ``root``, or from the hub's cache to its blobs."""
    target = Path(os.path.realpath(path))
    snapshots = next((place for place in root.parents if place.name == "snapshots"), None)
    blobs = snapshots.parent / "blobs" if snapshots else None
    return target.is_relative_to(root) or target.parent == blobs
