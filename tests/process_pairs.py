"""Two processes that communicate over gloo."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from torch import multiprocessing

import warm_processes  # noqa: F401  # says what the fork server imports


def run_in_two_processes(work: Callable[[int, Path], None], folder: Path) -> None:
    """Run ``work(rank, folder)`` in two processes that communicate over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(
        _run, args=(work, folder, port), nprocs=2, start_method="forkserver"
    )


def _run(rank: int, work: Callable[[int, Path], None], folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    work(rank, folder)
