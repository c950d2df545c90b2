"""Work in two processes that communicate with gloo."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import start_processes

# Imported once, in the process from which all pairs are forked: these imports take seconds.
PRELOADED = ["iwlora.testing", "iwlora.training.run", "sklearn.metrics"]


def run_in_two_processes(work: Callable[[int, Any], None], argument: Any) -> None:
    """Run ``work(rank, argument)`` in two processes, as a launcher such as torchrun starts them.

    Args:
        work: a function of a module, which both processes import.
        argument: anything that can be pickled.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.get_context(method).set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_run, (work, argument, port), nprocs=2, start_method=method)


def _run(rank: int, work: Callable[[int, Any], None], argument: Any, port: int) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # a Trainer collects garbage in every training; modules need not be scanned
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work(rank, argument)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
