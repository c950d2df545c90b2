"""Runs as processes of this machine: memory, cores and GPUs decide what starts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.compare.execute.local import LocalExecutor
from iwlora.compare.execute.machine import Slot, available_gpus, divide, gpu_memory
from iwlora.errors import IwloraError

pytestmark = pytest.mark.quick
real = torch.cuda.device_count


def test_the_machine_is_divided_into_equal_shares() -> None:
    assert divide(2, [0, 1, 2, 3], []) == [Slot((0, 1), None), Slot((2, 3), None)]
    assert divide(3, [4, 5], ["a", "b"]) == [Slot((4,), "a"), Slot((5,), "b"), Slot((4,), "a")]
    with pytest.raises(IwloraError, match=r"--jobs 9+: accepted are 1 to 1,024"):
        LocalExecutor(int("9" * 30))
    with pytest.raises(IwloraError, match="--jobs 0"):
        LocalExecutor(0)


def test_only_gpus_that_exist_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for visible, exist, expected in (
        ("-1", 0, []),
        ("NoDevFiles", 0, []),
        ("0", 0, []),  # on a machine without GPUs
        ("", 0, []),
        ("1, 0,-1,2", 2, ["1", "0"]),
        ("GPU-8932f937,GPU-1", 2, ["GPU-8932f937", "GPU-1"]),
        (None, 2, ["0", "1"]),
    ):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        if exist or not torch.cuda.is_available():
            monkeypatch.setattr("torch.cuda.device_count", (lambda n=exist: n) if exist else real)
            assert available_gpus() == expected, visible


def test_a_driver_that_does_not_know_the_memory_limits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("iwlora.compare.execute.machine.available_gpus", lambda: ["0"])
    executor = LocalExecutor(3)
    executor._running[tmp_path] = None, executor._free_slots.pop()  # type: ignore[assignment]
    for said, memory, has_capacity in (
        ("echo 4", 4 * 2**20, False),
        ("echo '[N/A]'", 0, True),
        ("exit 6", 0, True),
    ):
        smi.write_text(f"#!/bin/sh\n{said}\n")
        smi.chmod(0o755)
        assert gpu_memory("memory.free", "0") == memory
        assert executor.has_capacity(2**30) == has_capacity
    assert executor.has_capacity(2**20)


def test_a_further_run_waits_for_memory_and_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwlora.compare.execute.machine.available_gpus", list)
    monkeypatch.setattr("iwlora.compare.execute.machine.available_cores", lambda: [0, 0])
    monkeypatch.setattr(LocalExecutor, "_fork", lambda *_: None)  # as if it could not fork
    monkeypatch.setattr(
        "iwlora.compare.execute.executor.train_command",
        lambda folder: ["sh", "-c", "echo $OMP_NUM_THREADS; taskset -p $$ || true; sleep 30"],
    )
    executor = LocalExecutor(2)
    log = tmp_path / "log.txt"
    try:
        assert executor.has_capacity(10**18), "the first run starts whatever it needs"
        executor.start(tmp_path / "a", log)
        assert not executor.has_capacity(10**18)
        assert executor.has_capacity(0)
        executor.start(tmp_path / "b", log)
        assert not executor.has_capacity(0), "no slot is left"
        deadline = time.monotonic() + 20
        while log.read_text().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.read_text().startswith("1\n")
    finally:
        executor.stop()
    assert executor.wait(0) == []


def test_each_run_sees_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwlora.compare.execute.machine.available_gpus", lambda: ["3", "5"])
    monkeypatch.setattr("iwlora.compare.execute.machine.gpu_memory", lambda *_: 0)
    monkeypatch.setattr(
        "iwlora.compare.execute.executor.train_command",
        lambda folder: ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"],
    )
    for jobs, seen in ((1, ["3"]), (2, ["3", "5"])):
        executor, log = LocalExecutor(jobs), tmp_path / f"{jobs}.txt"
        for number in range(jobs):
            executor.start(tmp_path / str(number), log)
        while executor._running:
            executor.wait(20)
        assert sorted(log.read_text().split()) == seen


@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")
def test_runs_are_forked_onto_the_cores_of_their_slots_and_never_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[Any] = []

    class FakeServer:
        def __init__(self, lock: Any, from_here: bool) -> None:
            assert not from_here

        def fork(self, arguments: list[str], output: Any, cores: Any) -> Any:
            forked.append((arguments[:2], cores))
            return subprocess.Popen(["true"])

        def close(self) -> None:
            forked.append("closed")

    monkeypatch.setattr("iwlora.compare.execute.local.ForkServer", FakeServer)
    monkeypatch.setattr("iwlora.compare.execute.machine.available_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("iwlora.compare.execute.executor.train_command", lambda folder: ["true"])
    run = tmp_path / "a"
    for jobs, gpus in ((1, []), (2, []), (1, ["0"])):
        monkeypatch.setattr(
            "iwlora.compare.execute.machine.available_gpus", lambda names=gpus: names
        )
        executor = LocalExecutor(jobs)
        executor.start(run, tmp_path / "log.txt")
        executor.stop()
    arguments = ["train", str(run / "recipe.yaml")]
    assert forked == [(arguments, None), "closed", (arguments, (0, 1)), "closed"]
