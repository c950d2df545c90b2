"""Training cases in two processes that communicate with gloo."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from iwlora.methods.contract import Method
from iwlora.testing.case import BATCH, Case


def train_in_two_processes(cases: Sequence[Case]) -> None:
    """Train all cases in one pair of processes; writes each ``case.two_process_logits``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [(case.method, case.architecture, case.folder) for case in cases]
    spawn(_train, args=(arguments, port), nprocs=2)  # type: ignore[no-untyped-call]
    for case in cases:
        first, second = (load_file(_logits(case.folder, rank))["logits"] for rank in (0, 1))
        save_file({"first": first, "second": second}, case.two_process_logits)


def _train(rank: int, arguments: list[tuple[Method, str, Path]], port: int) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # a Trainer collects garbage in every training; modules need not be scanned
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    for method, architecture, folder in arguments:
        case = Case(method, architecture, folder)
        attached = case.attach()
        case.fit(
            attached,
            folder / "two-processes",
            per_device_train_batch_size=BATCH // 2,
            ddp_backend="gloo",
        )
        save_file({"logits": case.logits(attached.model)}, _logits(folder, rank))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _logits(folder: Path, rank: int) -> Path:
    return folder / f"two-processes-{rank}.safetensors"
