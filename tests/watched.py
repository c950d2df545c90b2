"""A command in a process of its own, at a terminal that answers "y", with its code watched."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iwlora.cli import main


class Watched(NamedTuple):
    """What a command did: its exit code, what it printed, what it asked, foreign code it ran."""

    code: int
    printed: str
    asked: list[str]
    ran: list[str]


def watch(foreign: Path, *arguments: object) -> Watched:
    """Run a command; code of files below ``foreign`` is foreign."""
    return watch_call(foreign, lambda: main([str(argument) for argument in arguments]))


def watch_call(foreign: Path, work: Callable[[], int | None]) -> Watched:
    """Call a function in a fork whose terminal answers each question with "y".

    Python itself reports each question, each import and each execution of code to an audit hook.
    """
    read_end, write_end = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        os.close(read_end)
        _work(str(foreign), work, write_end)
    os.close(write_end)
    os.write(terminal, b"y\n" * 20)
    printed: list[bytes] = []
    reader = threading.Thread(target=_read, args=(terminal, printed))
    reader.start()
    with os.fdopen(read_end, "rb") as stream:
        events = [json.loads(line) for line in stream]
    _, status = os.waitpid(pid, 0)
    reader.join()
    os.close(terminal)
    return Watched(
        os.waitstatus_to_exitcode(status),
        b"".join(printed).decode(errors="replace"),
        [what for kind, what in events if kind == "asked"],
        [what for kind, what in events if kind == "ran"],
    )


def _read(terminal: int, printed: list[bytes]) -> None:
    try:
        while part := os.read(terminal, 65536):
            printed.append(part)
    except OSError:  # on Linux the end of a terminal is an error
        return


def _work(foreign: str, work: Callable[[], int | None], report: int) -> None:
    code = 70
    try:
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")

        def tell(kind: str, what: str) -> None:
            os.write(report, json.dumps([kind, what]).encode() + b"\n")

        def hook(event: str, arguments: Sequence[Any]) -> None:
            if event == "builtins.input":
                tell("asked", str(arguments[0]))
            if event == "exec" and str(arguments[0].co_filename).startswith(foreign):
                tell("ran", arguments[0].co_filename)

        sys.addaudithook(hook)
        signal.alarm = lambda seconds: tell("asked", f"alarm {seconds}") or 0
        code = work() or 0
    except SystemExit as stop:
        code = int(str(stop.code or 0))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
