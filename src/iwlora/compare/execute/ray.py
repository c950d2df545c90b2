"""Runs over the machines of a Ray cluster, which share the comparison's folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import IO, Any

from iwlora.compare.execute.local import command
from iwlora.errors import IwloraError


def carry_out(place: str, log: str) -> int:
    """On a machine of the cluster: the exit code of a run whose folder both machines see."""
    if not (Path(place) / "recipe.yaml").is_file():
        raise FileNotFoundError(
            f"{place} is not on this machine; give --out a folder that all machines share"
        )
    with open(log, "ab") as words:
        return subprocess.run(
            command(Path(place)), stdin=subprocess.DEVNULL, stdout=words, stderr=words, check=False
        ).returncode


class Ray:
    """Ray tasks, each with ``RAY_CPUS_PER_RUN`` cores and a GPU where the cluster has some.

    Joins the cluster that ``RAY_ADDRESS`` names, or starts one on this machine. ``jobs`` above 1
    limits how many run at once; Ray limits it to what the machines hold.
    """

    def __init__(self, jobs: int = 1, lock: IO[str] | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise IwloraError("--executor ray needs Ray: pip install 'iwlora[ray]'")
        import ray

        self._ray: Any = ray
        self._begun = not ray.is_initialized()
        if self._begun:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        resources = self._ray.cluster_resources()
        self._cpus = float(os.environ.get("RAY_CPUS_PER_RUN", "1"))
        self._gpus = 1.0 if resources.get("GPU", 0) else 0.0
        fits = int(resources.get("CPU", 1) / self._cpus)
        if self._gpus:
            fits = min(fits, int(resources["GPU"]))
        self._most = max(1, fits if jobs == 1 else min(jobs, fits))
        self._running: dict[Any, Path] = {}

    def room(self, bytes_needed: int) -> bool:
        """Whether the cluster holds one more run."""
        return len(self._running) < self._most

    def start(self, place: Path, log: Path) -> None:
        """Hand a run to the cluster."""
        log.parent.mkdir(parents=True, exist_ok=True)
        remote = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)
        handle = remote(carry_out).remote(str(place.resolve()), str(log.resolve()))
        self._running[handle] = place

    def ended(self, timeout: float) -> list[tuple[Path, int]]:
        """(place, exit code) of runs that have ended; 1 where the machine was lost."""
        if not self._running:
            return []
        done, _ = self._ray.wait([*self._running], num_returns=1, timeout=timeout)
        found = []
        for handle in done:
            try:
                code = int(self._ray.get(handle))
            except FileNotFoundError as error:
                raise IwloraError(str(error)) from None
            except self._ray.exceptions.RayError:
                code = 1
            found.append((self._running.pop(handle), code))
        return found

    def stop(self) -> None:
        """Cancel what runs, and leave the cluster."""
        for handle in self._running:
            self._ray.cancel(handle, force=True)
        self._running.clear()
        if self._begun:
            self._ray.shutdown()
