"""Executes the runs of a comparison on the machines of a Ray cluster, which share its folder."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO, Any

from iwlora.compare.execute.executor import start_process
from iwlora.errors import IwloraError
from iwlora.extras import locate_package, outside_the_current_folder
from iwlora.results import layout


class RayExecutor:
    """Ray tasks, each with ``RAY_CPUS_PER_RUN`` cores and a GPU if the cluster has some.

    Joins the cluster that ``RAY_ADDRESS`` names, or starts one on this machine.

    Args:
        jobs: Above 1, the largest number of runs at once. Ray limits it to what the machines hold.
        lock: Unused: other machines cannot keep a file of this one open.

    Raises:
        IwloraError: Ray is not installed, or ``RAY_CPUS_PER_RUN`` is no number of cores.
    """

    def __init__(self, jobs: int = 1, lock: IO[str] | None = None) -> None:
        self._cpus = _cpus_per_run()
        locate_package("ray", "--executor ray")
        import ray

        self._ray: Any = ray
        self._started_cluster = not ray.is_initialized()
        if self._started_cluster:
            with outside_the_current_folder():  # in which workers would look for modules
                ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        resources = self._ray.cluster_resources()
        self._gpus = 1.0 if resources.get("GPU", 0) else 0.0
        fitting = int(resources.get("CPU", 1) / self._cpus)
        if self._gpus:
            fitting = min(fitting, int(resources["GPU"]))
        self._max_runs = max(1, fitting if jobs == 1 else min(jobs, fitting))
        self._running: dict[Any, Path] = {}

    def has_capacity(self, bytes_needed: int) -> bool:
        """Whether the cluster holds one more run."""
        return len(self._running) < self._max_runs

    def start(self, folder: Path, log: Path) -> None:
        """Submit a run to the cluster."""
        remote = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)
        task = remote(_execute).remote(str(folder.resolve()), str(log.resolve()), os.getcwd())
        self._running[task] = folder

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        """(folder, exit code) of runs that have ended; 1 if their machine was lost."""
        if not self._running:
            return []
        done, _ = self._ray.wait([*self._running], num_returns=1, timeout=timeout)
        ended = []
        for task in done:
            folder = self._running.pop(task)
            try:
                code = int(self._ray.get(task))
            except FileNotFoundError as error:
                raise IwloraError(str(error)) from None
            except self._ray.exceptions.RayError:
                code = 1
            ended.append((folder, code))
        return ended

    def stop(self) -> None:
        """Cancel all runs, and leave the cluster."""
        tasks, self._running = [*self._running], {}
        if tasks:  # Ray ends this process if a task is canceled that has already failed
            _, running = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
            for task in running:
                self._ray.cancel(task, force=True)
        if self._started_cluster:
            self._ray.shutdown()


def _cpus_per_run() -> float:
    given = os.environ.get("RAY_CPUS_PER_RUN", "1")
    try:
        cpus = float(given)
    except ValueError:
        cpus = math.nan
    if not 0 < cpus < math.inf:
        raise IwloraError(
            f"RAY_CPUS_PER_RUN={given} in the environment: accepted is a number above 0, the cores "
            "of a run, such as 2"
        )
    return cpus


def _execute(folder: str, log: str, current: str) -> int:
    """On a machine of the cluster: execute the run of a shared folder; returns its exit code.

    Relative paths in a recipe start in ``current``, where that is on this machine.
    """
    if not (Path(folder) / layout.RECIPE).is_file():
        raise FileNotFoundError(
            f"{folder} is not on this machine; give --out a folder that all machines share"
        )
    with open(log, "ab") as output:
        here = current if os.path.isdir(current) else None
        return start_process(Path(folder), output, cwd=here).wait()
