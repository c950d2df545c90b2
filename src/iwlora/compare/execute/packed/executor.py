"""Executes runs of a comparison in packs, and those that cannot be packed as processes."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from iwlora.compare.execute import machine
from iwlora.compare.execute.local import STOP_SECONDS, LocalExecutor
from iwlora.compare.execute.packed.planner import MOST_RUNS, pack_key, runs_that_fit
from iwlora.compare.execute.packed.process import ended_run, pack_command
from iwlora.errors import IwloraError, short_repr
from iwlora.training.recipe import Recipe
from iwlora.training.state.run_folder import RunDir

logger = logging.getLogger("iwlora")

Run = tuple[Path, Path]
"""The folder of a run, and its log."""


@dataclass
class _Pack:
    process: subprocess.Popen[str]
    runs: list[Run]
    gpu: str | None
    reader: threading.Thread | None = None

    def end(self) -> None:
        """Wait until the process has ended and all that it said is read."""
        self.process.wait()
        if self.reader is not None:
            self.reader.join()


class PackedExecutor:
    """Trains runs with the same frozen model together, one pack on each GPU or one on the CPU.

    Runs that cannot be packed are trained one after another, as with ``--jobs 1``; so is a run
    that has no other of its kind, and one that is tried again after an error. Where the process of
    a pack is killed, its runs go on in packs of half as many, down to a run alone.

    Args:
        jobs: 1: a pack has the whole machine, or a GPU.
        lock: A file that every process keeps open, and with it the lock on the folder.
        fitting: The number of runs of a recipe that the free memory of a GPU, or of the machine,
            holds.

    Raises:
        IwloraError: More jobs were asked for.
    """

    def __init__(
        self,
        jobs: int = 1,
        lock: IO[str] | None = None,
        fitting: Callable[[Recipe, int], int] = runs_that_fit,
    ) -> None:
        if jobs != 1:
            raise IwloraError(
                f"--jobs {short_repr(jobs)}: --executor packed trains all runs in one process, or "
                "in one on each GPU; leave out --jobs, or take --executor local"
            )
        self._lock, self._fitting = lock, fitting
        self._local = LocalExecutor(1, lock)
        self._gpus: list[str | None] = [*machine.available_gpus()] or [None]
        self._waiting: list[Run] = []
        self._alone: Path | None = None
        self._packs: list[_Pack] = []
        self._ended: queue.Queue[tuple[_Pack, Path, int]] = queue.Queue()
        self._most_runs = MOST_RUNS
        self._failed: set[Path] = set()

    def has_capacity(self, bytes_needed: int) -> bool:
        """Whether one more run can join those that wait; none joins while some train."""
        busy = self._packs or self._alone is not None
        return not busy and len(self._waiting) < self._most_runs * len(self._gpus)

    def start(self, folder: Path, log: Path) -> None:
        """Let a run wait for others that it can be trained with."""
        self._waiting.append((folder, log))

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        """Train what waits, and return the runs that have ended."""
        self._start_waiting()
        if self._alone is not None:
            ended = self._local.wait(timeout)
            self._alone = None if ended else self._alone
            return ended
        found: list[tuple[Path, int]] = []
        while self._packs:
            try:
                pack, folder, code = self._ended.get(timeout=0 if found else timeout)
            except queue.Empty:
                break
            run = next(run for run in pack.runs if run[0] == folder)
            pack.runs.remove(run)
            if code < 0:  # the run itself may be healthy
                self._waiting.append(run)
            else:
                found.append((folder, code))
            if code > 0:
                self._failed.add(folder)
            if not pack.runs:
                pack.end()
                self._packs.remove(pack)
                self._gpus.append(pack.gpu)
        return found

    def stop(self) -> None:
        """Let every run end after a checkpoint, and kill those that do not in time."""
        for pack in self._packs:
            pack.process.terminate()
        for pack in self._packs:
            try:
                pack.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pack.process.kill()
            pack.end()
        self._packs.clear()
        self._local.stop()

    def _start_waiting(self) -> None:
        """Start the first waiting run with all that it can be trained with, on each free GPU."""
        while self._waiting and self._gpus and self._alone is None:
            folder, log = self._waiting[0]
            recipe, key = RunDir(folder).recipe(), self._key(folder)
            alike = [run for run in self._waiting if self._key(run[0]) == key]
            if key is None or min(len(alike), self._most_runs) == 1:
                if self._packs:
                    return
                self._waiting.remove((folder, log))
                self._local.start(folder, log)
                self._alone = folder
                return
            gpu = self._gpus.pop(0)
            free = machine.free_memory() if gpu is None else machine.gpu_memory("memory.free", gpu)
            at_once = self._fitting(recipe, free) if free else MOST_RUNS  # 0: it is not known
            self._packs.append(self._start(alike[: self._most_runs], at_once, gpu))

    def _key(self, folder: Path) -> tuple[Any, ...] | None:
        """Runs of equal keys are trained together; None for one that is trained alone."""
        return None if folder in self._failed else pack_key(RunDir(folder).recipe())

    def _start(self, runs: list[Run], at_once: int, gpu: str | None) -> _Pack:
        self._waiting = [run for run in self._waiting if run not in runs]
        # glibc keeps what each thread has freed for this thread alone; here one works at a time.
        environment = {"MALLOC_ARENA_MAX": "1", **os.environ}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        passed = [self._lock.fileno()] if self._lock and os.name == "posix" else []
        with runs[0][1].open("ab") as errors:  # of the interpreter itself
            process = subprocess.Popen(
                pack_command(runs, at_once),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                env=environment,
                pass_fds=passed,
            )
        pack = _Pack(process, list(runs), gpu)
        pack.reader = threading.Thread(target=self._read, args=(pack, list(runs)), daemon=True)
        pack.reader.start()
        return pack

    def _read(self, pack: _Pack, runs: list[Run]) -> None:
        """Pass on which runs the process says have ended; the others end with it."""
        assert pack.process.stdout is not None
        left = {number: folder for number, (folder, _) in enumerate(runs)}
        try:
            with pack.process.stdout as lines:
                for line in lines:
                    ended = ended_run(line)
                    if ended is not None and ended.run in left:
                        self._ended.put((pack, left.pop(ended.run), ended.exit))
        finally:
            code = pack.process.wait()
            if left and code < 0:
                self._most_runs = max(1, len(runs) // 2)
                logger.warning(
                    f"a process that trained {len(runs)} runs together was killed by signal "
                    f"{-code}: those that have not ended go on, at most {self._most_runs} together"
                )
            for folder in left.values():
                self._ended.put((pack, folder, code or 1))
