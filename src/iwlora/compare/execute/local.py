"""Executes the runs of a comparison as processes of this machine, each with its own cores."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from iwlora.compare.execute import machine
from iwlora.compare.execute.executor import start_process, train_arguments
from iwlora.compare.execute.fork_server import ForkedProcess, ForkServer
from iwlora.compare.execute.machine import Slot
from iwlora.errors import IwloraError, short_repr

MOST_JOBS = 1024
STOP_SECONDS = 20.0
"""How long a run may take to end after it is asked to, before it is killed."""


class LocalExecutor:
    """Processes of this machine, ``jobs`` at once, each pinned to its own cores and to a GPU.

    A single job has all cores and one GPU. A further run starts only if the free memory holds what
    one is known to need. On Linux without GPUs, runs are forked from a process that has imported
    everything.

    Args:
        jobs: The largest number of runs at once.
        lock: A file that every process keeps open, and with it the lock on the folder.
        from_here: Whether that may be a fork of this process, which then holds little else.
    """

    def __init__(self, jobs: int = 1, lock: IO[str] | None = None, from_here: bool = False) -> None:
        if not 1 <= jobs <= MOST_JOBS:
            raise IwloraError(f"--jobs {short_repr(jobs)}: accepted are 1 to {MOST_JOBS:,}")
        self._free_slots = machine.divide(jobs, machine.available_cores(), machine.available_gpus())
        self._all_cores = jobs == 1
        self._lock, self._from_here = lock, from_here
        self._fork_server: ForkServer | None = None
        self._running: dict[Path, tuple[ForkedProcess | subprocess.Popen[bytes], Slot]] = {}

    def has_capacity(self, bytes_needed: int) -> bool:
        """Whether there is a free slot and memory for it; the first run always starts."""
        if not self._free_slots or not self._running:
            return bool(self._free_slots)
        gpu = self._free_slots[0].gpu
        if gpu is not None:
            sharing = 1 + sum(slot.gpu == gpu for _, slot in self._running.values())
            total = machine.gpu_memory("memory.total", gpu)
            if not total:  # it is not known: the user has said how many runs fit
                return True
            return machine.gpu_memory("memory.free", gpu) >= bytes_needed <= total / sharing
        held = sum(machine.resident_memory(process.pid) for process, _ in self._running.values())
        return machine.free_memory() + held >= (1 + len(self._running)) * bytes_needed

    def start(self, folder: Path, log: Path) -> None:
        """Start a run in the first free slot."""
        slot = self._free_slots.pop(0)
        with log.open("ab") as output:
            process = self._fork(folder, slot, output) or self._spawn(folder, slot, output)
        self._running[folder] = process, slot

    def _fork(self, folder: Path, slot: Slot, output: IO[bytes]) -> ForkedProcess | None:
        if slot.gpu is not None or sys.platform != "linux":
            return None
        self._fork_server = self._fork_server or ForkServer(self._lock, from_here=self._from_here)
        cores = None if self._all_cores else slot.cores
        return self._fork_server.fork(train_arguments(folder), output, cores)

    def _spawn(self, folder: Path, slot: Slot, output: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if not self._all_cores:
            environment["OMP_NUM_THREADS"] = str(len(slot.cores))
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.gpu
        posix = os.name == "posix"  # Windows passes no descriptors
        passed = [self._lock.fileno()] if self._lock and posix else []
        process = start_process(folder, output, env=environment, pass_fds=passed)
        if not self._all_cores and hasattr(os, "sched_setaffinity"):
            with suppress(ProcessLookupError):  # it has ended already
                os.sched_setaffinity(process.pid, slot.cores)
        return process

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        """Wait for the first run to end, and free the slots of all that have ended."""
        for process, _ in [*self._running.values()][:1]:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        ended = []
        for folder, (process, slot) in [*self._running.items()]:
            if (code := process.poll()) is not None:
                ended.append((folder, code))
                del self._running[folder]
                self._free_slots.append(slot)
        return ended

    def stop(self) -> None:
        """Ask every process to end, and kill those that do not."""
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        if self._fork_server:
            self._fork_server.close()
            self._fork_server = None
