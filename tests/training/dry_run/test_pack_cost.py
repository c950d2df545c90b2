"""The estimated memory and time of runs that are trained together are those of a pack of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from iwlora.training.dry_run.pack_cost import PackCost, estimate_pack_cost
from iwlora.training.dry_run.run_cost import MemoryCost
from iwlora.training.dry_run.step_profiler import MemoryTracker
from iwlora.training.packed import gain
from iwlora.training.packed.pack import Pack
from iwlora.training.run import train
from runs import recipe, with_options


class TrackedPack(Pack):
    """Measures the most that the joint passes hold."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = MemoryTracker()

    def _forward(self, seats: Any) -> None:
        with self.tracker:
            super()._forward(seats)

    def _backward(self, seats: Any) -> None:
        with self.tracker:
            super()._backward(seats)


@pytest.mark.slow
def test_the_memory_of_a_pass_is_that_of_a_pack(
    with_dropout: Path, reviews: Mapping[str, str], tmp_path: Path
) -> None:
    """Three runs; the gradients that the runs keep are counted beside the pass."""
    runs = [
        with_options(recipe(with_dropout, reviews, seed=seed, epochs=1), rank=8)
        for seed in range(3)
    ]
    pack = TrackedPack()
    work = [
        partial(train, run, tmp_path / str(number), False, "constant", pack.joined)
        for number, run in enumerate(runs)
    ]
    results = pack.execute(work)
    assert pack.passes == 6, results
    trained = 4 * results[0]["trainable_parameters"]
    cost = estimate_pack_cost(runs[0], 2)
    assert 3 * (cost.pass_bytes + trained) == pytest.approx(pack.tracker.peak, rel=0.15)
    assert cost.run_bytes >= 0


@pytest.mark.quick
def test_a_run_saves_its_part_of_what_a_pass_saves(
    with_dropout: Path, reviews: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs take 6 s one after another and 2 s together; a step has two micro-batches."""
    seconds = iter([6.0, 2.0] * 3)
    monkeypatch.setattr(gain, "_seconds", lambda _: next(seconds))
    assert estimate_pack_cost(recipe(with_dropout, reviews, accumulate=2), 4).saved_seconds == 2.0


@pytest.mark.quick
def test_the_peak_has_the_state_of_all_runs_and_the_passes_of_some() -> None:
    alone = {"before": 1000, "weights": 500, "state": 20, "gradients": 10, "workspace": 5}
    cost = PackCost(saved_seconds=0.0, run_bytes=30, pass_bytes=100)
    memory = MemoryCost(**alone, activations=80, reached=0)
    assert memory.peak == 1105
    others = 7 * (30 + 10) + 8 * 20
    assert cost.peak(memory, runs=8, at_once=8) == 1000 + 8 * 110 + others
    assert cost.peak(memory, runs=8, at_once=2) == 1000 + 2 * 110 + others
    loading = MemoryCost(**alone, activations=80, reached=1200)
    assert cost.peak(loading, runs=8, at_once=2) == 1000 + 2 * 110 + others + 95
