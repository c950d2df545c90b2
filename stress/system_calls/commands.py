"""The commands whose system calls fail: where they start, and what they must leave."""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from unittest import mock

import compare_kills
import run_kills
from iwlora.cli import main
from iwlora.compare.execute import fork_server, local
from iwlora.results import file_digests
from iwlora.training import prepare
from iwlora.training.loop.callbacks import MetricsLog
from system_calls.strace import Ending, run_fork

SAVE_STEPS, INTERRUPTED_AT = 2, 3
REPORT = ("summary.json", "summary.md", "summary.csv", "summary.tex", "report.html", "figures")


@dataclass(frozen=True)
class Command:
    """A command line, where it starts, and what it leaves.

    Args:
        arguments: Those of the command line.
        start: The state of the working folder before it.
        results: Reads what it leaves, without times; raises an error where that is incomplete.
        progress: Files of the start that may change although the command fails.
        prints: Whether its result is what it prints.
    """

    arguments: Sequence[str]
    start: str
    results: Callable[[], Any]
    progress: Sequence[str] = ()
    prints: bool = False


def commands(work: Path) -> dict[str, Command]:
    """{name: command} of all commands that read or write files, in a working folder."""
    run, comparison, measurement = work / "run", work / "comparison", work / "importance.json"
    train = ("train", f"{work}/train.yaml", "--out", str(run))
    task = [f"task.train={work}/train.csv", "task.text=text", "task.label=mood"]
    measure = ("measure", "--model", f"{work}/backbone", *task, "train.max_length=16")
    export = ("export", str(run), "--to")
    began = ("status.json", "environment.json", "metrics.jsonl", "checkpoints/best.safetensors")

    def trained() -> Any:
        return run_kills.read_results(run)

    def measured() -> Any:
        fields = json.loads(measurement.read_text(encoding="utf-8"))
        figures = (measurement.with_suffix(suffix).read_bytes() for suffix in (".png", ".svg"))
        return {**fields, "seconds": 0, "digest": None}, *figures

    def compared() -> Any:
        runs = sorted(file.parent for file in comparison.rglob("result.json"))
        results = [run_kills.read_results(run) for run in runs]
        pages = [(comparison / name).exists() for name in REPORT]
        return compare_kills.read_summary(comparison), results, pages

    def files(*paths: Path) -> Callable[[], Any]:
        return lambda: [read_files(path) for path in paths]

    return {
        "train": Command(train, "inputs", trained),
        "train, resumed": Command(
            train, "interrupted", trained, progress=[f"run/{name}" for name in began]
        ),
        "measure": Command(
            (*measure, "--out", str(measurement), "--max-batches", "2"), "measured", measured
        ),
        "compare": Command(
            ("compare", f"{work}/compare.yaml", "--out", str(comparison)), "inputs", compared
        ),
        "predict": Command(
            [
                *("predict", str(run), "--input", f"{work}/validation.csv"),
                *("--output", f"{work}/answers.csv"),
            ],
            "predicted",
            files(work / "answers.csv"),
        ),
        "export": Command((*export, f"{work}/adapter"), "finished", files(work / "adapter")),
        "export --merge": Command(
            (*export, f"{work}/merged", "--merge"), "finished", files(work / "merged")
        ),
        "report": Command(
            ("report", str(comparison)), "compared", files(*(comparison / name for name in REPORT))
        ),
        "verify": Command(("verify", str(run), "--inputs"), "finished", files(), prints=True),
    }


def read_files(path: Path) -> dict[str, bytes]:
    """{path: content} of a file, or of the files below a folder; locks are left out.

    Raises:
        FileNotFoundError: There is neither.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    below = [path] if path.is_file() else sorted(path.rglob("*"))
    files = [file for file in below if file.is_file() and file.name != ".lock"]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


class Study:
    """A working folder, the states in which commands start, and their execution in forks.

    Args:
        root: An empty folder. Paths are part of results, so all commands work in ``root/work``.
    """

    def __init__(self, root: Path) -> None:
        self.work, self.logs, self._states = root / "work", root / "logs", root / "states"
        for folder in (self.work, self.logs, self._states):
            folder.mkdir(parents=True)
        self.commands = commands(self.work)

    def make_states(self) -> None:
        """Execute what comes before the commands, and import what they import."""
        self.make_first_states()
        command = {name: command.arguments for name, command in self.commands.items()}
        self.restore("inputs")
        self._must([*command["measure"], "--max-batches", "1"])
        self._keep("measured")
        self.restore("inputs")
        self.execute(command["train"], interrupt=True)
        self._keep("interrupted")
        self.restore("inputs")
        self._must(command["compare"])
        self._must([*command["report"], "--baseline", "iw-lora"])
        self._keep("compared")

    def make_first_states(self) -> None:
        """The states in which ``train``, ``export``, ``predict`` and ``verify`` start."""
        self._make_inputs()
        self._keep("inputs")
        self._must(self.commands["train"].arguments)
        self._keep("finished")
        self._must([*self.commands["predict"].arguments, "--input", f"{self.work}/train.csv"])
        self._keep("predicted")

    def restore(self, state: str) -> None:
        """Put the working folder into a state."""
        shutil.rmtree(self.work)
        shutil.copytree(self._states / state, self.work)

    def start_files(self, state: str) -> dict[str, bytes]:
        """{path: content} of the files of a state."""
        return read_files(self._states / state)

    def execute(
        self,
        arguments: Sequence[str],
        injection: Sequence[str] = (),
        trace: bool = False,
        interrupt: bool = False,
    ) -> Ending:
        """Execute a command in a fork of this process.

        Args:
            arguments: Those of the command line.
            injection: As for :func:`run_fork`.
            trace: As for :func:`run_fork`.
            interrupt: Whether its training is interrupted after its first checkpoint.
        """
        patch = {"MetricsLog": _Interrupting} if interrupt else {"MetricsLog": MetricsLog}

        def work() -> int:
            if arguments[0] == "compare":
                _fork_server()
            os.environ["XDG_CACHE_HOME"] = str(self.work / "cache")
            with (
                mock.patch.multiple(prepare, **patch),
                mock.patch.object(file_digests, "CACHED_FROM_BYTES", 0),  # the cache is tried too
            ):
                code = main(arguments)
            if not injection:  # else this write could be the call that fails
                imported = "\n".join(name for name in sys.modules if not name.startswith("__"))
                (self.logs / "imported").write_text(imported, encoding="utf-8")
            return code

        return run_fork(work, self.logs, injection, trace)

    def _make_inputs(self) -> None:
        settings = run_kills.make_recipes(self.work)["lora, best epoch"]
        settings["train"] |= {"epochs": 1, "save_steps": SAVE_STEPS, "precision": "fp32"}
        method = {"name": "iw-lora", "rank": 2, "alpha": 0.3, "max_batches": 2}
        plan = {**settings, "methods": [{"name": "lora", "rank": 2}, method], "seeds": [0]}
        del plan["method"]
        for name, recipe in (("train", {**settings, "method": method}), ("compare", plan)):
            (self.work / f"{name}.yaml").write_text(json.dumps(recipe), encoding="utf-8")
        for path in self.work.rglob("*"):
            os.utime(path, (0, 0))  # the cache keeps no digests of files that were just written

    def _must(self, arguments: Sequence[str]) -> None:
        ending = self.execute(arguments)
        if ending.code:
            raise SystemExit(f"{' '.join(arguments)} failed: {ending.err}")
        for name in (self.logs / "imported").read_text(encoding="utf-8").splitlines():
            if name not in sys.modules:
                _import(name)

    def _keep(self, state: str) -> None:
        shutil.copytree(self.work, self._states / state)


def _import(name: str) -> None:
    """Import what a fork has imported, so that the next one has it; not all names are modules."""
    try:
        importlib.import_module(name)
    except ImportError:
        return


class _Interrupting(MetricsLog):
    """Ends the training as Ctrl-C does."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == INTERRUPTED_AT:
            raise KeyboardInterrupt


class _ForkServer(fork_server.ForkServer):
    """A fork server that is forked itself instead of executed."""

    def __init__(self, requests: socket.socket, lock: IO[str] | None = None, **_: object) -> None:
        self._requests, self._locks = requests, [lock.fileno()] if lock else []

    def close(self) -> None:
        """It ends when its socket is closed."""
        self._requests.close()


def _fork_server() -> None:
    """Let this process have a fork server, which strace does not follow."""
    requests, server_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        requests.close()
        os.dup2(server_end.detach(), 0)
        fork_server.main([])
        os._exit(0)
    server_end.close()
    local.ForkServer = functools.partial(_ForkServer, requests)  # type: ignore[attr-defined, assignment]
