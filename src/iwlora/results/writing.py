"""Writing files: whole or not at all, after a check that the output paths can be written."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from iwlora.errors import CannotWrite, IwloraError
from iwlora.inputs.places import check_folder, entries, files_below
from iwlora.results import layout


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file to write, which takes the place of ``path`` when the block ends, or is removed.

    Missing parent folders are made. Raises ``CannotWrite``; the file that was there stays then.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{layout.PART_SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        try:
            yield temporary
            if temporary.stat().st_mode != mode:  # a library made another file of this name
                temporary.chmod(mode)
            sync(temporary)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):  # what is left over harms nothing; the error itself must show
                temporary.unlink(missing_ok=True)
            raise
        sync(target.parent)
    except (OSError, SafetensorError) as error:
        former = "; the former file is as it was" if target.exists() else ""
        raise CannotWrite(
            f"cannot write {target} ({_reason(error)}){_free_space(target)}{former}"
        ) from error


def follow_umask(folder: Path) -> None:
    """Give the files below a folder the mode of a new file.

    Some libraries, such as safetensors, write files that only their owner can read. Raises
    ``CannotWrite``.
    """
    with write_errors("the modes of files", folder):
        probe = folder / f".mode.{secrets.token_hex(4)}{layout.PART_SUFFIX}"
        probe.touch(exist_ok=False)
        mode = probe.stat().st_mode
        probe.unlink()
        for file in files_below(folder):
            if not file.is_symlink() and file.stat().st_mode != mode:
                file.chmod(mode)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``: the old file or the whole new one, never a part.

    Missing parent folders are made. Raises ``CannotWrite``.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def append_line(path: Path, line: str) -> None:
    """Add a line to a log, below what a killed process left of its last line.

    Missing parent folders are made. Raises ``CannotWrite``.
    """
    with write_errors(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as stream:
            stream.seek(max(0, stream.tell() - 1))
            if stream.read(1) not in (b"\n", b""):
                line = f"\n{line}"
            stream.write(f"{line}\n".encode())


def write_at(path: Path, start: int, content: bytes) -> None:
    """Write bytes into a file from byte ``start`` on, and cut off what was there behind them.

    What a process that is killed was writing is half there; the caller can tell. A missing file
    and its folders are made. Raises ``CannotWrite``.
    """
    with write_errors(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as stream:
            stream.truncate(start)
            stream.seek(start)
            stream.write(content)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_errors(content: str, folder: str | os.PathLike[str]) -> Iterator[None]:
    """Raise ``CannotWrite`` for a write in the block that fails: each library has its own error.

    Args:
        content: What is written, for the message.
        folder: Where.
    """
    try:
        yield
    except Exception as error:
        is_of_tokenizers = type(error) is Exception and "(os error " in str(error)
        if not (is_of_tokenizers or isinstance(error, (OSError, RuntimeError, SafetensorError))):
            raise
        raise CannotWrite(
            f"cannot write {content} into {folder} ({_reason(error)}){_free_space(folder)}"
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0]


def remove_parts(folder: Path) -> None:
    """Remove what a killed process was writing into the folder."""
    for file in entries(folder):
        if file.name.startswith(".") and file.name.endswith(layout.PART_SUFFIX):
            file.unlink()


def _free_space(path: str | os.PathLike[str]) -> str:
    free = free_bytes(path)
    return "" if free is None else f"; {free / 1e6:,.1f} MB of its disk are free"


def free_bytes(path: str | os.PathLike[str]) -> int | None:
    """The free space of the disk where a file or a folder is or will be; None if nobody knows."""
    place = Path(path).absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:  # the folder is what is wrong
        return None
    return usage.free if usage.total else None  # /proc, for example, has no size


def reserve(path: str | os.PathLike[str], needed: int, content: str) -> None:
    """Raise ``CannotWrite`` if the disk has less space than what will be written.

    Args:
        path: The file or the folder that will be written.
        needed: Bytes.
        content: What is written, for the message: "the run".
    """
    free = free_bytes(path)
    if free is not None and free < needed:
        raise CannotWrite(
            f"{path} has {free / 1e6:,.1f} MB of disk left, and for {content} about "
            f"{max(0.1, needed / 1e6):,.1f} MB are needed; nothing was begun"
        )


def check_writable(path: str | os.PathLike[str], option: str) -> None:
    """Raise ``IwloraError`` if the file of an option cannot be written.

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


def check_output(path: str | os.PathLike[str], option: str) -> None:
    """Raise ``IwloraError`` for a file that a run or a comparison has written, or may still write.

    A new file of another name may lie in such a folder.
    """
    check_named(path)
    target = Path(path).resolve()
    for folder in (target, *target.parents):
        marks = (layout.RESULT, layout.SOURCES, layout.POOL, layout.LOCK)
        inside = target.relative_to(folder).parts[:1]
        if any((folder / name).is_file() for name in marks) and (
            not inside or inside[0] in layout.OWN_NAMES
        ):
            raise IwloraError(
                f"{option} {path} belongs to the results in {folder}; choose another path"
            )


def check_named(path: str | os.PathLike[str]) -> None:
    """Raise ``IwloraError`` for an empty path, which would stand for the current folder."""
    if not os.fspath(path):
        raise IwloraError("an empty path was given; give a name, or . for the current folder")


def normalize_path(path: str | os.PathLike[str]) -> Path:
    """The path without ``..``, which could lead elsewhere once a missing folder is made.

    >>> normalize_path("/no/such/../place")
    PosixPath('/no/place')
    """
    check_named(path)
    target = Path(path)
    return target.resolve() if ".." in target.parts else target


def output_folder(path: str | os.PathLike[str], content: str) -> Path:
    """The folder to write a run or a comparison into, as :func:`normalize_path` has it.

    Raises ``IwloraError`` for a file, and for a folder with a symbolic link that leads out of it.
    """
    folder = normalize_path(path)
    if folder.exists() and not folder.is_dir():
        raise IwloraError(f"{path} is a file; give a folder for the {content}")
    check_folder(folder)
    return folder


def new_folder_path(path: str | os.PathLike[str]) -> Path:
    """The path of a folder to make, as :func:`normalize_path` has it.

    Raises ``IwloraError`` where something is already; an empty folder may be there.
    """
    target = normalize_path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise IwloraError(f"{path} exists and is not an empty folder; choose another one")
    return target


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes ``target`` when the block ends, or is removed."""
    with write_errors(target.name, target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        temporary.mkdir()
        try:
            yield temporary
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
