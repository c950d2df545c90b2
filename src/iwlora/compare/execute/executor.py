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
    return ["train", str(folder / layout.RECIPE), "--floors", "constant", "--out", str(folder)]


def python_command(statement: str, *arguments: str) -> list[str]:
    """The command that executes a statement in a Python that takes no module from where it is.

    ``-m`` and ``-c`` put the current folder before the places of all other modules, and ``-P``,
    which does not, needs Python 3.11. What ``PYTHONPATH`` names stays.
    """
    first = "import sys; sys.path[:1] == [''] and sys.path.pop(0)"
    return [sys.executable, "-c", f"{first}; {statement}", *arguments]


def train_command(folder: Path) -> list[str]:
    """The command that executes the run of a folder."""
    statement = "from iwlora.cli import main; sys.exit(main())"
    return python_command(statement, *train_arguments(folder))


def start_process(folder: Path, output: IO[bytes], **options: Any) -> subprocess.Popen[bytes]:
    """Execute the run of a folder in a Python process of its own, which prints to ``output``."""
    command, no_input = train_command(folder), subprocess.DEVNULL
    return subprocess.Popen(command, stdin=no_input, stdout=output, stderr=output, **options)
