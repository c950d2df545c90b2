"""SHA-256 of files, with a cache for large ones: 10 GB of weights are read once on a machine."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from iwlora.errors import CannotWrite, IwloraError
from iwlora.inputs.places import open_file
from iwlora.inputs.yaml_json import read_mapping, read_utf8
from iwlora.results.formats import with_digest
from iwlora.results.writing import write_text

CACHED_FROM_BYTES = 2**24
"""Smaller files are read each time."""

_SETTLED_SECONDS = 2.0  # a newer file may change again within one tick of its time
_CHUNK_BYTES = 2**22


def file_digest(path: Path, use_cache: bool = True) -> str:
    """The SHA-256 of a file's content.

    That of a large file is kept in the user's cache folder with the file's path, size, times and
    inode, and computed again when one of them differs.

    Args:
        path: The file; links are followed.
        use_cache: Whether to believe the cache. Only reading the file finds a change that the file
            system knows nothing of, as on a failing disk.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = file.write_text("abc")
        >>> file_digest(file)[:16]
        'ba7816bf8f01cfea'
    """
    real = Path(os.path.realpath(path))
    before = _identity(real)
    if before["size"] < CACHED_FROM_BYTES:
        return _read(real)
    entry = cache_folder() / f"{hashlib.sha256(str(real).encode()).hexdigest()}.json"
    if use_cache and (digest := _cached(entry, before)) is not None:
        return digest
    digest = _read(real)
    newest = max(before["mtime_ns"], before["ctime_ns"])
    settled = time.time_ns() - newest > _SETTLED_SECONDS * 1e9
    if settled and _identity(real) == before:
        try:
            write_text(entry, json.dumps(with_digest({**before, "sha256": digest})) + "\n")
        except CannotWrite:  # a cache that cannot be written costs time only
            return digest
    return digest


def note_own(file: Path, made_from: str = "") -> None:
    """Note in the user's cache folder that the user had this content written to this file.

    ``made_from`` is a digest of what it was made from, where that matters.
    """
    with suppress(CannotWrite):  # it then counts as somebody else's
        write_text(_own_entry(file), f"{_read(file)} {made_from}\n")


def is_own(file: Path, made_from: str = "") -> bool:
    """Whether :func:`note_own` was called for the file as it is, with the same ``made_from``."""
    try:
        return read_utf8(_own_entry(file)).strip() == f"{_read(file)} {made_from}".strip()
    except (OSError, ValueError):
        return False


def _own_entry(file: Path) -> Path:
    return cache_folder() / f"own-{hashlib.sha256(os.path.realpath(file).encode()).hexdigest()}.txt"


def cache_folder() -> Path:
    """``file-digests`` in :func:`user_cache`."""
    return user_cache() / "file-digests"


def user_cache() -> Path:
    """``iwlora`` in the user's cache folder (``XDG_CACHE_HOME``, or ``~/.cache``)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "iwlora"


def _identity(path: Path) -> dict[str, int]:
    status = path.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,  # only the system sets it
        "inode": status.st_ino,
        "device": status.st_dev,
    }


def _cached(entry: Path, identity: dict[str, int]) -> str | None:
    """The stored digest of the same file; None without one."""
    try:
        stored = read_mapping(entry)
    except IwloraError:
        return None
    digest = str(stored.get("sha256"))
    return digest if stored == with_digest({**identity, "sha256": digest}) else None


def _read(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
