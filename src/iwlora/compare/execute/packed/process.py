"""The process of a pack: trains the runs of several folders together, and says when each has ended.

Each run has its own log. Standard output gets a line ``{"run": number, "exit": code}`` for each run
that has ended; what libraries print there while they are imported stands in other lines.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from iwlora.compare.execute.executor import python_command
from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json

if TYPE_CHECKING:
    from iwlora.training.packed.pack import Pack

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def pack_command(runs: Sequence[tuple[Path, Path]], most_runs: int) -> list[str]:
    """The command that trains the runs of some folders, each with its log."""
    order = {"runs": [[str(folder), str(log)] for folder, log in runs], "most_runs": most_runs}
    statement = "from iwlora.compare.execute.packed.process import main; main(sys.argv[1])"
    return python_command(statement, json.dumps(order))


class EndedRun(NamedTuple):
    """A line of a pack's process: the number of a run in the order, and its exit code."""

    run: int
    exit: int


def ended_run(line: str) -> EndedRun | None:
    """What a line on the standard output of a pack says; None for a line of something else.

    >>> ended_run('{"run": 3, "exit": 0}'), ended_run("onednn_verbose,v1,info,oneDNN v3.5.3")
    (EndedRun(run=3, exit=0), None)
    """
    try:
        message = from_json(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.keys() != {"run", "exit"}:
        return None
    run, code = message["run"], message["exit"]
    return EndedRun(run, code) if isinstance(run, int) and isinstance(code, int) else None


def take_standard_output() -> IO[str]:
    """The standard output of this process, for the caller alone: other output goes to stderr.

    Libraries in C print to the descriptor itself, for example with ``ONEDNN_VERBOSE=1``.
    """
    sys.stdout.flush()
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


class ThreadOutput(io.TextIOBase):
    """Writes into the log of the run whose thread writes.

    ``logs`` are {name of a thread: its log}; what other threads write goes to the first one.
    """

    def __init__(self) -> None:
        self.logs: dict[str, IO[str]] = {}

    def write(self, text: str) -> int:
        """Append to the log, at once."""
        log = self.logs.get(threading.current_thread().name) or next(iter(self.logs.values()))
        written = log.write(text)
        log.flush()
        return written


def main(text: str) -> None:
    """Train what an order of :func:`pack_command` names; ends the process."""
    ended = take_standard_output()
    warnings.filterwarnings("ignore", category=FutureWarning)
    from iwlora.training.packed.pack import Pack

    order: Any = from_json(text)
    pack = Pack(order["most_runs"])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _frame: pack.interrupt(caught))
    train_together([(Path(folder), Path(log)) for folder, log in order["runs"]], pack, ended)
    os._exit(0)  # without the search for cycles at exit


def train_together(runs: Sequence[tuple[Path, Path]], pack: Pack, ended: IO[str]) -> None:
    """Train the runs of some folders together.

    Args:
        runs: Folders that hold a recipe, each with the log of its run.
        pack: What computes their steps.
        ended: Gets a line for each run that has ended.
    """
    output = ThreadOutput()

    def one(number: int, folder: Path, log: Path) -> None:
        with log.open("a", encoding="utf-8") as stream:
            output.logs[threading.current_thread().name] = stream
            print(f"in one process with {len(runs) - 1} other runs")
            code = _train(folder, pack)
            del output.logs[threading.current_thread().name]
        ended.write(json.dumps({"run": number, "exit": code}) + "\n")
        ended.flush()

    with (
        runs[0][1].open("a", encoding="utf-8") as first,
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        output.logs[threading.main_thread().name] = first
        pack.execute([partial(one, n, *run) for n, run in enumerate(runs)])


def _train(folder: Path, pack: Pack) -> int:
    """Train the run of a folder; prints its error, and returns its exit code."""
    from iwlora.training.run import train
    from iwlora.training.state.run_folder import RunDir

    try:
        recipe = RunDir(folder).recipe()
        train(recipe, folder, partial(print, flush=True), "constant", pack.joined)
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}")
        return INTERRUPTED
    except IwloraError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()))
        return BAD_INPUT
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        print(f"error: {type(error).__name__}: {error}")
        return FAILED
    return 0
