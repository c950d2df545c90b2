"""Runs forked from a process that has imported what they need: most of a short run goes into that.

Each is a process still: it crashes alone and has cores, a log and a peak memory of its own. The
warm process does nothing but import, so that there are no threads and no CUDA where it forks.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

MODULES = ("iwlora.cli", "iwlora.training.run", "transformers.trainer", "sklearn.metrics")
"""What every run imports."""
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keeps NumPy and Arrow from starting threads when they are imported."""


class Forked:
    """A run as ``subprocess.Popen`` shows one; ``status`` tells its pid, then its exit code."""

    def __init__(self, status: io.FileIO, pid: int) -> None:
        self.pid = pid
        self._status = status
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises ``subprocess.TimeoutExpired``."""
        if self._code is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("iwlora", timeout or 0.0)
            told = self._status.readline()
            if not told:  # the warm process is gone, and nobody could tell how this one ends
                self._signal(signal.SIGKILL)
            self._code = int(told or -signal.SIGKILL)
            self._status.close()
        return self._code

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Warm:
    """The warm process. It keeps ``lock`` open, and so do its runs."""

    def __init__(self, lock: IO[str] | None = None, modules: Sequence[str] = MODULES) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "iwlora.compare.execute.fork_server",
                    str(theirs.fileno()),
                    *modules,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what it cannot import, each run says in its own log
                env={**os.environ, **_NO_THREADS},
                pass_fds=[theirs.fileno(), *([lock.fileno()] if lock else [])],
            )

    def begin(
        self, arguments: Sequence[str], words: IO[bytes], cores: Sequence[int] | None = None
    ) -> Forked | None:
        """Fork ``iwlora arguments``, which writes to ``words`` and computes on ``cores`` alone.

        None where the warm process is gone, or found that it must not be forked.
        """
        reading, writing = os.pipe()
        status = io.FileIO(reading)
        request = json.dumps({"arguments": [*arguments], "cores": cores}).encode()
        try:
            socket.send_fds(self._requests, [request], [writing, words.fileno()])
        except (BrokenPipeError, ConnectionResetError):
            status.close()
            return None
        finally:
            os.close(writing)
        pid = status.readline()
        if not pid:
            status.close()
            return None
        return Forked(status, int(pid))

    def close(self) -> None:
        """End it, once its runs have ended. Where the comparison is killed, it waits for them."""
        self._requests.close()
        self._process.terminate()
        self._process.wait()


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until nobody can ask: returns it in the fork, None in the parent."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()  # the pages of what is imported stay shared
    statuses: dict[int, int] = {}
    asked = [requests.fileno()]
    while asked or statuses:
        ready = select.select([woken, *asked], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _tell_ended(statuses)
        if requests.fileno() in ready:
            data, fds, _, _ = socket.recv_fds(requests, 2**20, 2)
            if not data:
                asked.clear()
                continue
            status, words = fds
            pid = os.fork()
            if pid == 0:
                for fd in (woken, wake, status, *statuses.values()):
                    os.close(fd)
                requests.close()
                os.dup2(words, 1)
                os.dup2(words, 2)
                request: dict[str, Any] = json.loads(data)
                return request
            os.close(words)
            os.write(status, f"{pid}\n".encode())
            statuses[pid] = status
    return None


def _tell_ended(statuses: dict[int, int]) -> None:
    while statuses:
        pid, state = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        status = statuses.pop(pid)
        with suppress(BrokenPipeError):  # the comparison was killed
            os.write(status, f"{os.waitstatus_to_exitcode(state)}\n".encode())
        os.close(status)


def may_fork() -> bool:
    """Whether nothing but this thread is there that a fork would lose."""
    torch = sys.modules.get("torch")
    return len(os.listdir("/proc/self/task")) == 1 and not (torch and torch.cuda.is_initialized())


def main(requests: int, modules: Sequence[str]) -> None:
    """The warm process, and in its forks the command line that was asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the comparison and its runs
    for name in modules:
        importlib.import_module(name)
    request = serve(socket.socket(fileno=requests)) if may_fork() else None
    if request is None:
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["cores"] is not None:
        os.sched_setaffinity(0, request["cores"])
        importlib.import_module("torch").set_num_threads(len(request["cores"]))
    sys.argv[1:] = request["arguments"]
    runpy.run_module("iwlora", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
