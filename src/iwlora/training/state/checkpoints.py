"""Checkpoints that can be trusted: sealed when they are complete, and checked before use."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path
from typing import ClassVar

from iwlora.errors import IwloraError
from iwlora.inputs.places import entries, files_below, open_file
from iwlora.results import layout
from iwlora.results.fingerprint import Fingerprint
from iwlora.results.formats import Document, FileName
from iwlora.results.run import Amount
from iwlora.results.writing import follow_umask

logger = logging.getLogger("iwlora")

_CHUNK_BYTES = 2**22


class Seal(Document):
    """What is written into a checkpoint last; its version holds for all files of the checkpoint.

    Args:
        seconds: The training time until the checkpoint.
        files: {path in the checkpoint: [bytes, CRC-32]}.
        fingerprint: Of the run; None in checkpoints of older versions.
    """

    format_name: ClassVar[str] = "checkpoint"
    is_sealed: ClassVar[bool] = True

    seconds: Amount
    files: dict[FileName, list[int]]
    fingerprint: Fingerprint | None = None


def seal(folder: Path, seconds: float, fingerprint: Fingerprint | None = None) -> None:
    """Store size and checksum of every file, after they are on the disk."""
    follow_umask(folder)
    files = [file for file in files_below(folder) if file.name != layout.SEAL]
    checksums = {str(path.relative_to(folder)): _checksum(path, sync=True) for path in files}
    contents = Seal(seconds=seconds, files=checksums, fingerprint=fingerprint)
    contents.save(folder / layout.SEAL)


def is_torn(folder: Path) -> bool:
    """Whether a checkpoint was begun and not sealed."""
    return folder.is_dir() and not (folder / layout.SEAL).exists()


def last_sealed(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files are as they were sealed; a warning names each other one."""
    for folder in newest_first(checkpoints):
        reason = damage(folder)
        if reason is None:
            return folder
        logger.warning(f"{folder} is not used: {reason}")
    return None


def seconds_until(checkpoint: Path | None) -> float:
    """The training time until a sealed checkpoint; 0 for none."""
    return Seal.load(checkpoint / layout.SEAL).seconds if checkpoint else 0.0


def fingerprint_in(checkpoint: Path) -> Fingerprint | None:
    """The fingerprint of the run that wrote a sealed checkpoint."""
    return Seal.load(checkpoint / layout.SEAL).fingerprint


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    if is_torn(folder):
        return "it was not written to the end"
    try:
        files = Seal.load(folder / layout.SEAL).files
    except IwloraError:
        return f"its {layout.SEAL} is damaged"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or _checksum(path) != expected:
            return f"its {name} is damaged"
    for path in folder.iterdir():
        if path.name not in {layout.SEAL, *(Path(name).parts[0] for name in files)}:
            return f"its {path.name} was not there when it was sealed"
    return None


def _checksum(path: Path, sync: bool = False) -> list[int]:
    """[bytes, CRC-32]; with ``sync`` the file is first flushed to the disk."""
    checksum = 0
    with open_file(path) as stream:
        if sync:
            os.fsync(stream.fileno())
        while chunk := stream.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return [path.stat().st_size, checksum]


def newest_first(checkpoints: Path) -> list[Path]:
    """The folders of checkpoints, that of the last step first."""
    steps = ((layout.checkpoint_step(path), path) for path in entries(checkpoints))
    return [path for _, path in sorted((s for s in steps if s[0] is not None), reverse=True)]
