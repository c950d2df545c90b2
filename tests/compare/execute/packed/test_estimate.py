"""``iwlora compare --dry-run`` of packs: which runs are in one, their time and their memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from iwlora.compare.execute.packed import estimate
from iwlora.compare.execute.packed.estimate import PacksEstimate
from iwlora.compare.plan import cost_estimate
from iwlora.compare.plan.cost_estimate import estimate_cost
from iwlora.compare.plan.planned_runs import Plan
from iwlora.training.dry_run.pack_cost import PackCost
from iwlora.training.dry_run.run_cost import MemoryCost, RunCost
from iwlora.training.packed.shares import NotPackable

pytestmark = pytest.mark.quick

GIBI = 2**30
MEMORY = MemoryCost(GIBI, 0, 0, 0, 0, 0, reached=GIBI)
NOTHING: dict[str, Any] = dict.fromkeys([field.name for field in fields(RunCost)], 0)
SECOND_A_STEP = RunCost(**{**NOTHING, "step_seconds": 1.0, "memory": MEMORY})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of runs of each pass that was timed; a pass saves a run half a second."""
    timed: list[int] = []

    def pack_cost(_: Any, runs: int) -> PackCost:
        timed.append(runs)
        return PackCost(0.5, run_bytes=0, pass_bytes=GIBI // 4)

    monkeypatch.setattr(cost_estimate, "estimate_run_cost", lambda *_, **__: SECOND_A_STEP)
    monkeypatch.setattr(estimate, "estimate_pack_cost", pack_cost)
    monkeypatch.setattr(estimate.machine, "available_gpus", list)
    return timed


def test_packs_have_a_time_and_a_peak(measured: list[int], make_plan: Callable[..., Plan]) -> None:
    """Three steps a run: 1.5 s in a pack, 3 s alone; a pass holds eight runs at most."""
    methods = ["full", {"name": "lora", "rank": 4}, {"name": "iw-lora", "rank": 4}]
    plan = make_plan(methods=methods, seeds=[*range(5)])
    announced: list[str] = []
    packs = PacksEstimate(plan, fitting=lambda _recipe, _free: 8)
    lines = estimate_cost(plan, 2, announced.append, packs=packs).splitlines()
    assert announced[-1] == "timing steps of full", "the memory of packs is measured first"
    assert lines[0].startswith("full: 5 runs")
    assert lines[0].endswith("1.000 s a step, about 15.0 s")
    assert lines[1].startswith("lora: 5 runs")
    assert lines[1].endswith("0.500 s a step, about 7.5 s")
    assert lines[3] == (
        "pack of 10 runs (lora, iw-lora), 8 in a pass: about 15.0 s, peak memory about 3.00 GiB"
    )
    assert lines[-1].endswith("about 30.0 s with 1 pack at once")
    assert measured == [4], "once for all arms, and with few runs on a CPU"


def test_runs_of_a_search_are_packs_of_their_own(
    measured: list[int], make_plan: Callable[..., Plan]
) -> None:
    plan = make_plan(seeds=[*range(65)], search={"lr": [1e-4, 1e-3, 1e-2], "rule": "best-score"})
    packs = PacksEstimate(plan, fitting=lambda _recipe, _free: 64)
    lines = estimate_cost(plan, 1, print, packs=packs).splitlines()
    found = [line.partition(":")[0] for line in lines if line.startswith("pack of")]
    assert found == [
        "pack of 6 trials (lora, iw-lora), all in a pass",
        "pack of 64 runs (lora, iw-lora), all in a pass",
        "pack of 64 runs (lora, iw-lora), all in a pass",
        "pack of 2 runs (lora, iw-lora), all in a pass",
    ]


def test_what_is_not_computed_together_has_the_cost_of_a_run_alone(
    measured: list[int], make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> PackCost:
        raise NotPackable("planted")

    single = make_plan(methods=["full", {"name": "lora", "rank": 4}], seeds=[0])
    text = estimate_cost(single, 1, print, packs=PacksEstimate(single))
    monkeypatch.setattr(estimate, "estimate_pack_cost", refuse)
    plan = make_plan(seeds=[0, 1])
    text += estimate_cost(plan, 1, print, packs=PacksEstimate(plan))
    assert "pack of" not in text
    assert "0.500 s" not in text
    assert not measured
