"""The precision that a device multiplies in, and the peak of its memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from iwlora.methods.tiny_models import tiny_model
from iwlora.training import device as device_module
from iwlora.training import run as run_module
from iwlora.training.device import peak_memory, resolve_precision
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import recipe

pytestmark = pytest.mark.quick
CPU = torch.device("cpu")


class FakeCuda:
    """A GPU's allocator, as far as its peak is concerned."""

    def __init__(self) -> None:
        self.peak = 0

    def is_available(self) -> bool:
        return True

    def reset_peak_memory_stats(self) -> None:
        self.peak = 0

    def max_memory_allocated(self) -> int:
        return self.peak


def test_a_run_does_not_report_the_gpu_memory_of_the_run_before(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    prepare = run_module.prepare
    allocated = iter([1000, 10])

    def allocating(*args: Any) -> Any:
        cuda.peak = max(cuda.peak, next(allocated))
        return prepare(*args)

    monkeypatch.setattr(device_module, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(run_module, "prepare", allocating)
    peaks = [
        train(recipe(tiny_bert, reviews, epochs=0.1), tmp_path / name)["peak_memory_bytes"]
        for name in ("large", "small")
    ]
    assert peaks == [1000, 10]


def test_without_a_gpu_it_is_the_memory_of_the_process() -> None:
    before = peak_memory()
    assert before is not None
    assert before > 2**20
    held = torch.ones(2**26, dtype=torch.uint8)
    assert held.numel() <= (peak_memory() or 0)


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")
        assert resolve_precision("fp32", CPU) == "fp32"
        assert resolve_precision("bf16", CPU) == "bf16"


def test_a_torch_that_does_not_say_what_the_cpu_can_do_gets_fp32_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    device_module.warn_once.cache_clear()
    assert [resolve_precision("auto", CPU) for _ in range(2)] == ["fp32", "fp32"]
    (record,) = caplog.records
    assert "train.precision=auto takes fp32" in record.message


def test_a_process_trains_on_one_gpu_of_two(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else transformers wraps the model in ``DataParallel``, and doubles the gradient."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 2))
    assert Trainer(tiny_model("bert"), TrainingArguments(tmp_path / "theirs")).args.n_gpu == 2
    asked = recipe(tiny_bert, reviews)
    trainer = run_module.prepare(asked, RunDir.open(tmp_path / "run", asked), False).trainer
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == asked.train.batch_size
    assert trainer._wrap_model(trainer.model) is trainer.model
