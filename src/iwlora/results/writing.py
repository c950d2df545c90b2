"""Writing safely: never half a file, never beside another process, never outside the folder."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from iwlora.errors import IwloraError

PART = ".iwlora-part"
"""How the name of a file ends that is being written, or was when its process was killed."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file to write, which takes the place of ``path`` when the block ends, or is removed.

    Missing parent folders are made. Raises ``OSError`` when the place cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=PART)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``: the old file or the whole new one, never a part.

    Missing parent folders are made. Raises ``OSError`` when the place cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def writing(what: str, place: str | os.PathLike[str]) -> Iterator[None]:
    """Raise ``IwloraError`` for a write in the block that fails: each library has its own error."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        raise IwloraError(f"cannot write {what} into {place} ({reason}){_room(place)}") from error


def check_writable(path: str | os.PathLike[str], option: str) -> None:
    """Raise ``IwloraError`` where the file of an option could not be written after the work.

    Missing parent folders are made.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise IwloraError(f"{option} {path} cannot be written: {error.strerror}") from None


def remove_parts(folder: Path) -> None:
    """Remove what a killed process was writing into the folder."""
    for part in folder.glob(f".*{PART}"):
        part.unlink()


@contextmanager
def exclusive(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Whether this process alone holds the lock in the file ``path``, till the block ends.

    The operating system lets go of it when the process dies. The file stays.
    """
    with open(path, "a", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _room(place: str | os.PathLike[str]) -> str:
    try:
        free = shutil.disk_usage(place).free
    except OSError:  # the place is what is wrong
        return ""
    return f"; {free / 1e6:,.1f} MB of its disk are free"
