"""Forks runs from a process that has imported everything: imports take most of a short run.

Each run is still a process of its own: it crashes alone, and has its own cores, log and peak
memory. The server does nothing but import, read the rows of text files once for all runs, and fork,
so that no thread and no CUDA context exists when it forks. The comparison has imported nearly the
same for its checks: where it has no thread either, the server is a fork of it. It needs Linux.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import IO, Any

from iwlora.compare.execute.executor import python_command
from iwlora.compare.execute.forking import WITHOUT_THREADS, can_fork, end_after
from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.loading import read_in_advance, reading_once

MODULES = ("iwlora.cli", "iwlora.training.run", "transformers.trainer", "sklearn.metrics")
"""What every run imports."""


class ForkedProcess:
    """A forked run, with the methods of ``subprocess.Popen``.

    Args:
        status: A pipe on which the watcher of the run writes its exit code.
        pid: Its process.
    """

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
            code = self._status.readline()
            if not code:  # the watcher is gone, and nobody can report how this run ends
                _kill(self.pid)
            self._code = int(code or -signal.SIGKILL)
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


def _kill(pid: int) -> None:
    """End a process that is no child of this one; its locks are released when this returns."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([process], [], [])
        os.close(process)


class _Fork:
    """A fork of this process, with the methods of ``subprocess.Popen`` that end it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)  # until ``wait`` no other process gets its number

    def wait(self) -> None:
        """Wait for its end."""
        os.waitpid(self.pid, 0)


class ForkServer:
    """Starts the server process, and asks it to fork runs.

    Args:
        lock: A file that the runs keep open, and with it the lock on the folder.
        modules: What the server imports.
        from_here: Whether the server may be a fork of this process: runs then begin with what it
            has in memory.
    """

    def __init__(
        self,
        lock: IO[str] | None = None,
        modules: Sequence[str] = MODULES,
        from_here: bool = False,
    ) -> None:
        self._locks = [lock.fileno()] if lock else []
        self._requests, server_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | _Fork
        with server_end:
            if from_here and can_fork():
                self._process = self._forked(server_end, modules)
            else:
                self._process = subprocess.Popen(
                    python_command(f"from {__name__} import main; main(sys.argv[1:])", *modules),
                    stdin=server_end.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # if an import fails, each run says so in its log
                    env={**os.environ, **WITHOUT_THREADS},
                )

    def _forked(self, server_end: socket.socket, modules: Sequence[str]) -> _Fork:
        sys.stdout.flush()  # else the fork would print it once more
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            end_after(partial(self._serve_here, server_end, modules))
        return _Fork(pid)

    def _serve_here(self, server_end: socket.socket, modules: Sequence[str]) -> None:
        """Be the server, with the descriptors that one has which is executed."""
        self._requests.close()
        for lock in self._locks:  # each request has it for its run
            os.close(lock)
        os.dup2(server_end.fileno(), 0)
        server_end.close()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        main(modules)

    def fork(
        self, arguments: Sequence[str], output: IO[bytes], cores: Sequence[int] | None = None
    ) -> ForkedProcess | None:
        """Run ``iwlora arguments`` in a fork of the server.

        Args:
            arguments: Those of the command line.
            output: What it prints goes to this file.
            cores: The only cores that it uses; None: all.

        Returns:
            The run; None if the server has ended or must not be forked.
        """
        read_end, write_end = os.pipe()
        status = io.FileIO(read_end)
        request = json.dumps({"arguments": [*arguments], "cores": cores}).encode()
        with suppress(BrokenPipeError, ConnectionResetError):  # the server has ended
            socket.send_fds(self._requests, [request], [write_end, output.fileno(), *self._locks])
        os.close(write_end)
        if pid := status.readline():
            return ForkedProcess(status, int(pid))
        status.close()
        return None

    def close(self) -> None:
        """End the server; its runs go on."""
        self._requests.close()
        self._process.terminate()
        self._process.wait()


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, until the other end of the socket is closed.

    What is forked is the watcher of a run. It forks the run, and reports how this ends.

    Returns:
        The request in the process of its run, None in the server.
    """
    signal.signal(signal.SIGCHLD, _note_ended_watchers)
    gc.freeze()  # the pages of what is imported stay shared
    while True:
        data, fds, _, _ = socket.recv_fds(requests, 2**20, 3)
        if not data:
            return None
        request: dict[str, Any] = from_json(data)
        _read_rows(request["arguments"])
        if not can_fork():
            return None
        status, output = fds[:2]
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), requests.detach())  # an empty stdin
            pid = os.fork()
            if pid == 0:
                os.close(status)
                os.dup2(output, 1)
                os.dup2(output, 2)
                return request
            _watch(pid, status)
        for fd in fds:
            os.close(fd)


def _read_rows(arguments: Sequence[str]) -> None:
    """Read the rows that a run will ask for, unless they were read for another one."""
    if arguments[:1] == ["train"]:
        with suppress(IwloraError):  # the run reports it
            recipe = importlib.import_module("iwlora.training.recipe").load(arguments[1])
            read_in_advance(recipe.task)


def _note_ended_watchers(_signal: int, _frame: object) -> None:
    """Wait for the watchers that have ended: only then does their processor time count as ours."""
    with suppress(ChildProcessError):  # there is none left
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watch(pid: int, status: int) -> None:
    """Write the process and then the exit code of a run, and end this process.

    SIGTERM for all processes of a group is for the run, whose end is then reported.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(BrokenPipeError):  # the comparison was killed
        os.write(status, f"{pid}\n".encode())
        _, state = os.waitpid(pid, 0)
        os.write(status, f"{os.waitstatus_to_exitcode(state)}\n".encode())
    os._exit(0)


def main(modules: Sequence[str]) -> None:
    """The server process, and in the processes of runs the command line that was requested."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the comparison and its runs
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what a fork has is the comparison's
    for name in modules:
        importlib.import_module(name)
    with reading_once():
        request = serve(socket.socket(fileno=0)) if can_fork() else None
        if request is None:
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["cores"] is not None:
            os.sched_setaffinity(0, request["cores"])
            importlib.import_module("torch").set_num_threads(len(request["cores"]))
        sys.exit(importlib.import_module("iwlora.cli").main(request["arguments"]))
