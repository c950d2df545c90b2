"""The cores, GPUs and memory of this machine, and how runs share them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch


@dataclass(frozen=True)
class Slot:
    """A share of the machine: its cores, and its GPU if there are some."""

    cores: tuple[int, ...]
    gpu: str | None


def divide(jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[Slot]:
    """Equal shares of the cores, in turn with each GPU; cores are shared only if too few.

    Example:
        >>> divide(2, cores=[0, 1, 2, 3, 4], gpus=["0"])
        [Slot(cores=(0, 1), gpu='0'), Slot(cores=(2, 3), gpu='0')]
    """
    each = max(1, len(cores) // jobs)
    shares = [tuple(cores[(i * each + k) % len(cores)] for k in range(each)) for i in range(jobs)]
    return [Slot(share, gpus[i % len(gpus)] if gpus else None) for i, share in enumerate(shares)]


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_gpus() -> list[str]:
    """The names by which ``CUDA_VISIBLE_DEVICES`` gives a process one GPU, of those that exist.

    CUDA sees the GPUs before the first name that is none: -1 or SLURM's NoDevFiles hide all.
    """
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else map(str, range(count))
    return [name.strip() for name in names][:count]


def free_memory() -> int:
    """Bytes that further processes may take, of this machine and of its container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        stat = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no limit ("max"), or no control groups
        return free
    cache = int(stat[stat.index("inactive_file") + 1])
    return min(free, limit - used + cache)


def resident_memory(pid: int) -> int:
    """Bytes that a process holds; 0 if it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def gpu_memory(field: str, gpu: str) -> int:
    """Bytes of ``memory.free`` or ``memory.total`` of a GPU; 0 if its driver does not say."""
    if not shutil.which("nvidia-smi"):
        return 0
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", gpu]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    mebibytes = done.stdout.strip()  # or "[N/A]"
    return int(mebibytes) * 2**20 if done.returncode == 0 and mebibytes.isdecimal() else 0
