"""Processes forked from one that has imported everything: an import of torch takes seconds."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

import pytest

from iwlora.cli import main
from iwlora.compare.execute import fork_server, local
from iwlora.testing.processes import PRELOADED

CONTEXT = multiprocessing.get_context("forkserver")
# One process forks for all tests, also for those that work in two processes.
PRELOADED.extend([*fork_server.MODULES, "iwlora.compare.execute.comparison"])
CONTEXT.set_forkserver_preload(PRELOADED)


def start(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start ``work``, a function of a module that a new process can import."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


def run_script(script: Path, log: Path, *arguments: str) -> int:
    """Run a script to its end; what it prints goes to ``log``. Returns its exit code."""
    process = start(_run_script, script, log, arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run_script(script: Path, log: Path, arguments: tuple[str, ...]) -> None:
    _print_to(log)
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def run_command(log: Path, *arguments: object) -> int:
    """Run a command of ``iwlora`` to its end; what it prints goes to ``log``. Returns its code."""
    process = start(_run_command, log, [str(argument) for argument in arguments])
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run_command(log: Path, arguments: list[str]) -> None:
    _print_to(log)
    raise SystemExit(main(arguments))


def _print_to(log: Path) -> None:
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


class ForkServer(fork_server.ForkServer):
    """The fork server of a comparison, which is forked itself instead of executed.

    Args:
        requests: The comparison's end of the socket on which the server waits.
        lock: A file that the runs keep open.
    """

    def __init__(self, requests: socket.socket, lock: IO[str] | None = None, **_: object) -> None:
        self._requests, self._locks = requests, [lock.fileno()] if lock else []

    def close(self) -> None:
        """It is closed by :func:`fork_server_requests`."""


@contextlib.contextmanager
def fork_server_requests() -> Iterator[socket.socket]:
    """Start the process of a fork server; gives the socket on which it waits for requests."""
    requests, server_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with server_end:
        process = start(_serve, server_end)
    with requests:
        yield requests
    process.join(60)
    assert process.exitcode == 0


def _serve(server_end: socket.socket) -> None:
    os.dup2(server_end.detach(), 0)
    fork_server.main([])


@contextlib.contextmanager
def forked_runs() -> Iterator[None]:
    """Let the runs of a comparison in this process be forked by a server that is forked itself."""
    with fork_server_requests() as requests, pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "ForkServer", functools.partial(ForkServer, requests))
        yield


@contextlib.contextmanager
def started_comparison(log: Path, *arguments: object) -> Iterator[BaseProcess]:
    """Start ``iwlora compare`` in a process of its own."""
    with fork_server_requests() as requests:
        yield start(_compare, requests, log, [str(argument) for argument in arguments])


def _compare(requests: socket.socket, log: Path, arguments: list[str]) -> None:
    _print_to(log)
    local.ForkServer = functools.partial(ForkServer, requests)  # type: ignore[misc, assignment]
    raise SystemExit(main(["compare", *arguments]))
