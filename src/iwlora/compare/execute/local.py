"""Where the runs of a comparison are carried out: processes pinned to parts of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from iwlora.compare.execute.fork_server import Forked, Warm
from iwlora.errors import IwloraError

STOP_SECONDS = 20.0
"""How long a run may take to end when it is asked to, before it is killed."""


class Process(Protocol):
    """A run at work, as ``subprocess.Popen`` shows one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Executor(Protocol):
    """Carries out recipes; how many at once, and where, is its business."""

    def room(self, bytes_needed: int) -> bool:
        """Whether one more run can begin now."""

    def start(self, place: Path, log: Path) -> None:
        """Begin ``iwlora train place/recipe.yaml --out place``; its words go to ``log``."""

    def ended(self, timeout: float) -> list[tuple[Path, int]]:
        """(place, exit code) of runs that have ended, after at most ``timeout`` seconds."""

    def stop(self) -> None:
        """End every run that is still at work."""


def arguments(place: Path) -> list[str]:
    """What ``iwlora`` is told to carry out the run of a folder."""
    return ["train", str(place / "recipe.yaml"), "--out", str(place)]


def command(place: Path) -> list[str]:
    """What carries out the run of a folder in a Python of its own."""
    return [sys.executable, "-m", "iwlora", *arguments(place)]


@dataclass(frozen=True)
class Slot:
    """A share of the machine: its cores, and its GPU where there are some."""

    cores: tuple[int, ...]
    gpu: str | None


def slots(jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[Slot]:
    """Equal shares of the cores, no core in two of them while there are enough; GPUs in turn.

    >>> slots(2, cores=[0, 1, 2, 3, 4], gpus=["0"])
    [Slot(cores=(0, 1), gpu='0'), Slot(cores=(2, 3), gpu='0')]
    """
    each = max(1, len(cores) // jobs)
    shares = [tuple(cores[(i * each + k) % len(cores)] for k in range(each)) for i in range(jobs)]
    return [Slot(share, gpus[i % len(gpus)] if gpus else None) for i, share in enumerate(shares)]


class Local:
    """Processes of this machine, ``jobs`` at once, each pinned to cores of its own and to a GPU.

    One alone has the whole machine. A further run begins only when the memory that is free
    holds what one is known to need. ``lock`` is a file that every process keeps open. Without
    GPUs, on Linux, runs are forked from a process that has imported everything.
    """

    def __init__(self, jobs: int = 1, lock: IO[str] | None = None) -> None:
        if jobs < 1:
            raise IwloraError(f"--jobs {jobs}: accepted are 1 and more")
        self._free = slots(jobs, cores(), gpus())
        self._alone = jobs == 1
        self._lock = lock
        self._warm: Warm | None = None
        self._running: dict[Path, tuple[Process, Slot]] = {}

    def room(self, bytes_needed: int) -> bool:
        """Whether a slot and the memory for it are free; the first run always begins."""
        if not self._free or not self._running:
            return bool(self._free)
        together = (1 + len(self._running)) * bytes_needed
        gpu = self._free[0].gpu
        if gpu is not None:
            on_it = sum(slot.gpu == gpu for _, slot in self._running.values())
            total = _mebibytes("memory.total", gpu)
            return _mebibytes("memory.free", gpu) >= bytes_needed <= total / (1 + on_it)
        held = sum(_resident(process.pid) for process, _ in self._running.values())
        return free_memory() + held >= together

    def start(self, place: Path, log: Path) -> None:
        """Begin a run in the first free slot."""
        slot = self._free.pop(0)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as words:
            process = self._fork(place, slot, words) or self._spawn(place, slot, words)
        self._running[place] = process, slot

    def _fork(self, place: Path, slot: Slot, words: IO[bytes]) -> Forked | None:
        if slot.gpu is not None or sys.platform != "linux":
            return None
        self._warm = self._warm or Warm(self._lock)
        return self._warm.begin(arguments(place), words, None if self._alone else slot.cores)

    def _spawn(self, place: Path, slot: Slot, words: IO[bytes]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command(place),
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env=None if self._alone else _environment(slot, os.environ),
            pass_fds=[self._lock.fileno()] if self._lock else [],
        )
        if not self._alone and hasattr(os, "sched_setaffinity"):
            with suppress(ProcessLookupError):  # it has ended already
                os.sched_setaffinity(process.pid, slot.cores)
        return process

    def ended(self, timeout: float) -> list[tuple[Path, int]]:
        """Wait for the first to end, and give back the slots of all that have."""
        for process, _ in [*self._running.values()][:1]:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        found = []
        for place, (process, slot) in [*self._running.items()]:
            code = process.poll()
            if code is not None:
                found.append((place, code))
                del self._running[place]
                self._free.append(slot)
        return found

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
        if self._warm:
            self._warm.close()
            self._warm = None


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpus() -> list[str]:
    """The names by which a process is given one GPU."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    listed = _nvidia("index")
    return listed.split() if listed else []


def free_memory() -> int:
    """Bytes that further processes may take, of this machine and of its container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        stat = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no such limit: "max", or no control groups
        return free
    cache = int(stat[stat.index("inactive_file") + 1])
    return min(free, limit - used + cache)


def _environment(slot: Slot, base: Mapping[str, str]) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(len(slot.cores))}
    return {**base, **threads, **({"CUDA_VISIBLE_DEVICES": slot.gpu} if slot.gpu else {})}


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _nvidia(what: str, gpu: str | None = None) -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        [*query, *(["-i", gpu] if gpu else [])], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


def _mebibytes(what: str, gpu: str) -> int:
    """Bytes; 0 where the driver does not tell."""
    told = _nvidia(what, gpu)
    return int(told.split()[0]) * 2**20 if told else 0
