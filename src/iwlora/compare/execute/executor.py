"""What executes the runs of a comparison: the contract, and the command of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Protocol

from iwlora.results import layout


class Executor(Protocol):
    """Starts runs, and decides how many run at once and where.

    A run is known by its folder, which holds ``recipe.yaml``.
    """

    def has_capacity(self, bytes_needed: int) -> bool:
        """Whether one more run of this size can start now."""

    def start(self, folder: Path, log: Path) -> None:
        """Start a run; what it prints is appended to ``log``, whose folder exists."""

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        """(folder, exit code) of runs that have ended, after at most ``timeout`` seconds."""

    def stop(self) -> None:
        """End every run that has not ended."""


def train_arguments(folder: Path) -> list[str]:
    """The arguments with which ``iwlora`` executes the run of a folder."""
    return ["train", str(folder / layout.RECIPE), "--out", str(folder)]


def train_command(folder: Path) -> list[str]:
    """The command that executes the run of a folder."""
    return [sys.executable, "-m", "iwlora", *train_arguments(folder)]


def start_process(folder: Path, output: IO[bytes], **options: Any) -> subprocess.Popen[bytes]:
    """Execute the run of a folder in a Python process of its own, which prints to ``output``."""
    command, no_input = train_command(folder), subprocess.DEVNULL
    return subprocess.Popen(command, stdin=no_input, stdout=output, stderr=output, **options)
