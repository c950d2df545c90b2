"""Runs work in a fork of this process, with limits, and tells how it ended."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile import watch
from hostile.roots import Roots

SECONDS, BYTES = 10.0, 2 * 2**30
"""What a command may take of time, by the processor and by the clock, and of memory."""

ANSWERS = b"y\n" * 50
"""What is on standard input: whoever asks is answered, and what is missing was read."""


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Args:
        code: The exit code, negative for a signal.
        seconds: Until then, without the time in which the machine did something else.
        peak: The most bytes in memory.
        out: What was printed to standard output.
        err: What was printed to standard error.
        events: (property, detail, where) of what the audit hook saw.
        answers: How many bytes of standard input were read.
    """

    code: int
    seconds: float
    peak: int
    out: bytes
    err: bytes
    events: tuple[tuple[str, str, str], ...]
    answers: int


def run(
    work: Callable[[], int],
    folder: Path,
    roots: Roots,
    seconds: float = SECONDS,
    limit: int = BYTES,
    started: Callable[[int], None] = lambda _: None,
) -> Ending:
    """Run ``work``, which returns an exit code, in a fork.

    Args:
        work: The command.
        folder: Gets what the fork prints; its folder ``it`` is the working directory, if there.
        roots: What may be opened.
        seconds: After this time the fork is killed.
        limit: Bytes of memory beyond which allocations fail.
        started: Is told the process.
    """
    read_end, write_end = os.pipe()
    os.write(write_end, ANSWERS)
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(work, folder, roots, seconds, limit, read_end)
    try:
        started(pid)
        status, usage = _wait(pid, seconds, begun)
        left = struct.unpack("i", fcntl.ioctl(read_end, termios.FIONREAD, b"\0" * 4))[0]
    finally:
        os.close(read_end)
        os.close(write_end)
    lines = (folder / "events").read_text(encoding="utf-8").splitlines()
    return Ending(
        code=os.waitstatus_to_exitcode(status[0]),
        seconds=status[1],
        peak=usage.ru_maxrss * 1024,
        out=(folder / "stdout").read_bytes(),
        err=(folder / "stderr").read_bytes(),
        events=tuple((event[0], event[1], event[2]) for event in map(json.loads, lines)),
        answers=len(ANSWERS) - left,
    )


def _child(
    work: Callable[[], int], folder: Path, roots: Roots, seconds: float, limit: int, stdin: int
) -> None:
    """The fork: never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        files = [os.open(folder / name, writing) for name in ("stdout", "stderr", "events")]
        os.dup2(stdin, 0)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        os.chdir(folder / "it" if (folder / "it").is_dir() else folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with (
            open(0, encoding="utf-8", closefd=False) as sys.stdin,
            open(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
            open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as sys.stderr,
        ):
            watch.install(roots, files[2])
            code = _guarded(work)
    finally:
        os._exit(code)


def _guarded(work: Callable[[], int]) -> int:
    """The exit code as the interpreter would give it."""
    import traceback

    try:
        return work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _wait(pid: int, seconds: float, begun: float) -> tuple[tuple[int, float], Any]:
    """((status, seconds of its own), usage) of the fork, which is killed when it takes too long."""
    waited = 0.0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        own = time.monotonic() - begun - waited
        if done:
            return (status, own), usage
        waited = _waited(pid, waited)
        if own > seconds:
            os.killpg(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return (status, own), usage
        time.sleep(0.01 if own < 1 else 0.1)


def _waited(pid: int, before: float) -> float:
    """Seconds in which a process was ready and other processes had the cores."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return before
