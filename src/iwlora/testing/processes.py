"""Training cases once more in two processes that talk over gloo."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from iwlora.testing.case import BATCH, Case


def in_two_processes(cases: Sequence[Case]) -> None:
    """Train all cases in one pair of processes; each leaves its logits in ``case.two``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = [(case.method, case.architecture, case.folder) for case in cases]
    spawn(_train, args=(plain, port), nprocs=2)  # type: ignore[no-untyped-call]
    for case in cases:
        parts = [load_file(_part(case.folder, rank))["logits"] for rank in (0, 1)]
        save_file({"first": parts[0], "second": parts[1]}, case.two)


def _train(rank: int, plain: list[tuple[object, str, Path]], port: int) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # a Trainer collects garbage in every training; what was imported is none
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    for method, architecture, folder in plain:
        case = Case(method, architecture, folder)  # type: ignore[arg-type]
        attached = case.attach()
        case.fit(
            attached,
            folder / "two",
            per_device_train_batch_size=BATCH // 2,
            ddp_backend="gloo",
        )
        save_file({"logits": case.logits(attached.model)}, _part(folder, rank))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _part(folder: Path, rank: int) -> Path:
    return folder / f"two-{rank}.safetensors"
