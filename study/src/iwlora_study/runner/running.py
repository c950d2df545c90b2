"""Runs the cells of a stage in their order, each as ``iwlora compare`` in a process of its own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iwlora_study.runner import scores
from iwlora_study.runner.cells import Cell
from iwlora_study.runner.collecting import Spent, collect

Say = Callable[[str], None]


def compare_command(cell: Cell, glue: str | None, jobs: int, out: Path) -> list[str]:
    """The command of a cell; the folder of its data is the only thing that its recipe lacks."""
    data = [f"task.data_dir={glue}"] if cell.needs_glue else []
    command = [sys.executable, "-m", "iwlora", "compare", str(cell.path), *data]
    return [*command, "--jobs", str(jobs), "--executor", "local", "--quiet", "--out", str(out)]


def is_done(cell: Cell, folder: Path) -> bool:
    """Whether the scores of all runs of this cell, as it is now, are stored."""
    path = scores.scores_file(folder, cell.name)
    if not path.exists():
        return False
    stored = scores.load(path)
    return stored.complete and stored.digest == cell.digest


def run_cells(
    cells: Sequence[Cell],
    stage: str,
    stored: Path,
    runs: Path,
    minutes: float,
    command: Callable[[Cell, Path], list[str]],
    say: Say = print,
) -> bool:
    """Run the cells whose scores are not complete, until the time is over.

    The comparison that runs then gets SIGTERM: its runs end after a checkpoint, or begin anew when
    the same command goes on. What is finished is stored in any case.

    Args:
        cells: In their order.
        stage: "screen" or "confirm".
        stored: The folder of the scores.
        runs: The folder of the comparisons, which stays on this machine.
        minutes: When to stop.
        command: What runs a cell in a folder.
        say: Gets a line for each cell.

    Returns:
        Whether all cells are done.
    """
    end = time.monotonic() + 60 * minutes
    for cell in cells:
        if is_done(cell, stored):
            say(f"{cell.name}: done already")
            continue
        left = end - time.monotonic()
        if left <= 0:
            say("stopped; the same command goes on")
            return False
        out = runs / cell.name
        before = _spent_before(cell, stored, out)
        started, used = time.monotonic(), _processor_seconds()
        say(f"{cell.name}: {cell.regime}")
        with _terminated_with_us(command(cell, out)) as process:
            code = _wait(process, left)
        spent = Spent(
            before.processor + _processor_seconds() - used,
            before.wall + time.monotonic() - started,
        )
        found = collect(cell, stage, out, spent, ended=code in (0, 1))
        if found is not None:
            scores.save(found, stored)
            state = "complete" if found.complete else "not complete"
            say(f"{cell.name}: {len(found.runs)} runs are stored, {state}")
        if code is None:
            say("stopped; the same command goes on")
            return False
        if found is None or not found.complete:
            say(f"{cell.name} ended with exit code {code}; its message is above")
    return all(is_done(cell, stored) for cell in cells)


def _spent_before(cell: Cell, stored: Path, out: Path) -> Spent:
    """What earlier sessions spent on the same folder."""
    path = scores.scores_file(stored, cell.name)
    if not (path.exists() and out.exists()):
        return Spent()
    known = scores.load(path)
    same = known.digest == cell.digest
    return Spent(known.processor_seconds or 0.0, known.wall_seconds) if same else Spent()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None if the time is over, or this process is told to stop."""
    try:
        return process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        return None


@contextmanager
def _terminated_with_us(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that gets SIGTERM, and is waited for, if it still runs at the end of the block.

    SIGTERM to this process is a KeyboardInterrupt inside the block.
    """
    previous = signal.signal(signal.SIGTERM, _stop)
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        signal.signal(signal.SIGTERM, previous)


def _stop(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
