"""The command line as a user meets it, in this process or in one of its own, and its recipes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from iwlora.cli import main

# Single precision: what tests compare must not depend on what the machine multiplies quickly.
TRAIN = {"epochs": 1, "lr": 5e-3, "batch_size": 16, "max_length": 32, "precision": "fp32"}


class Outcome(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run a command in this process."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as usage:  # argparse ends this way
        code = int(str(usage.code))
    return Outcome(code, *capsys.readouterr())


def spawn(*arguments: object, **options: Any) -> Outcome:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "iwlora", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, **options
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_settings(model: Path, task: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """The settings of a short run of LoRA; ``more`` replaces whole parts."""
    method = {"name": "lora", "rank": 4}
    return {"model": str(model), "task": dict(task), "method": method, "train": TRAIN, **more}


def write_recipe(path: Path, settings: Any) -> Path:
    """Write settings as a recipe file."""
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def check_plain(outcome: Outcome) -> None:
    """Every line of a refusal is an error in plain words."""
    assert "Traceback" not in outcome.out + outcome.err
    assert outcome.err.startswith("error: ")
    assert all(line.startswith("error: ") for line in outcome.err.splitlines()), outcome.err


def check_unfinished(folder: Path) -> None:
    """Nothing in the folder looks like the end of a run."""
    for name in ("result.json", "adapter", "model", "sensitivity.json"):
        assert not (folder / name).exists()
    if (folder / "status.json").exists():
        assert json.loads((folder / "status.json").read_text())["state"] == "failed"


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class InProcessRun:
    """Stands for ``subprocess.Popen``: the command runs in this process when it is started."""

    started: list[list[str]]

    def __init__(self, command: list[str], stdout: Any, **_: Any) -> None:
        assert command[1] == "-c"
        self.started.append(command[3:])
        self.pid = os.getpid()
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            self.code = main(command[3:])
        stdout.write(output.getvalue().encode())

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def poll(self) -> int:
        return self.code

    def terminate(self) -> None:
        raise AssertionError("it has ended already")


def execute_in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let comparisons execute their runs in this process: quicker. Returns their commands."""
    started: list[list[str]] = []
    process = type("InProcessRun", (InProcessRun,), {"started": started})
    monkeypatch.setattr("iwlora.compare.execute.local.LocalExecutor._fork", lambda *_: None)
    monkeypatch.setattr("iwlora.compare.execute.local.subprocess.Popen", process)
    return started
