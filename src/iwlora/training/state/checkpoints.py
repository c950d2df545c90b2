"""Checkpoints to trust: sealed when whole, checked before use, the old ones kept till then."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.inputs.yaml_json import from_json
from iwlora.results.writing import write_text

logger = logging.getLogger("iwlora")

_SEAL = "complete.json"
_PIECE = 2**22


class Seal(TrainerCallback):
    """Seals each checkpoint once every callback before this one has added to it.

    Only then are older ones removed, all but ``keep``: a crash while one is written, or a disk
    that is full, leaves the one before it. ``seconds()`` is the training time so far.
    """

    def __init__(self, seconds: Callable[[], float], keep: int) -> None:
        self._seconds, self._keep = seconds, keep

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seal the checkpoint of this step."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if args.parallel_mode.value == "distributed":
            from torch import distributed

            distributed.barrier()  # every process has files of its own in it
        if args.should_save:
            seal(folder, self._seconds())
            for old in _by_step(folder.parent)[self._keep :]:
                shutil.rmtree(old)


def seal(folder: Path, seconds: float) -> None:
    """Note size and checksum of every file, after they are on the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)
    told = {str(path.relative_to(folder)): _fingerprint(path, sync=True) for path in files}
    write_text(folder / _SEAL, json.dumps({"seconds": seconds, "files": told}) + "\n")


def is_torn(folder: Path) -> bool:
    """Whether a checkpoint was begun and not sealed."""
    return folder.is_dir() and not (folder / _SEAL).exists()


def last_sealed(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were sealed; others are told and passed."""
    for folder in _by_step(checkpoints):
        flaw = _flaw(folder)
        if flaw is None:
            return folder
        logger.warning(f"{folder} is not used: {flaw}")
    return None


def seconds_until(checkpoint: Path | None) -> float:
    """The training time that a sealed checkpoint was reached in."""
    if checkpoint is None:
        return 0.0
    return float(from_json((checkpoint / _SEAL).read_text(encoding="utf-8"))["seconds"])


def _flaw(folder: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        sealed = from_json((folder / _SEAL).read_text(encoding="utf-8"))
        files, _ = dict(sealed["files"]), float(sealed["seconds"])
    except FileNotFoundError:
        return "it was not written to the end"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {_SEAL} is damaged"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or _fingerprint(path) != expected:
            return f"its {name} is damaged"
    return None


def _fingerprint(path: Path, sync: bool = False) -> list[int]:
    """[bytes, checksum]; with ``sync`` the file is first made to outlive a loss of power."""
    checksum = 0
    with path.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        while piece := stream.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return [path.stat().st_size, checksum]


def _by_step(checkpoints: Path) -> list[Path]:
    """The folders of checkpoints, the newest first."""
    found = [path for path in checkpoints.glob("checkpoint-*") if path.name[11:].isdecimal()]
    return sorted(found, key=lambda path: -int(path.name[11:]))
