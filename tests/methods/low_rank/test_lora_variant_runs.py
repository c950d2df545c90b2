"""What LoRA's relatives ask of a run: learning rates of their own, and data before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.recipe import build
from iwlora.training.run import train

LR = 1e-2


def test_the_factor_holds_along_the_whole_schedule(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[set[float]] = []
    step = FineTuningTrainer.training_step

    def watch(self: FineTuningTrainer, *args: Any, **kwargs: Any) -> Tensor:
        assert self.optimizer is not None
        rates.append({group["lr"] for group in self.optimizer.param_groups})
        return step(self, *args, **kwargs)

    monkeypatch.setattr(FineTuningTrainer, "training_step", watch)
    settings = {
        "model": str(tiny_bert),
        "task": reviews,
        "method": {"name": "lora+", "rank": 2, "ratio": 4},
        "train": {"epochs": 1, "lr": LR, "max_length": 32, "warmup": 0.4, "precision": "fp32"},
    }
    train(build(settings), tmp_path / "run")
    assert len(rates) == 3
    assert len(set(map(max, rates))) == 3  # it rises and falls
    for computed in rates[1:]:
        assert max(computed) == pytest.approx(4 * min(computed))


def test_evas_data_are_paid_for(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "model": str(tiny_bert),
        "task": reviews,
        "method": {"name": "eva", "rank": 2},
        "train": {"epochs": 1, "max_length": 32},
    }
    assert train(build(settings), tmp_path / "eva")["measure_seconds"] > 0.01
