"""``iwlora compare --dry-run``: runs, budgets and time before anything is executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan import cost_estimate
from iwlora.compare.plan.cost_estimate import estimate_cost
from iwlora.compare.plan.planned_runs import Plan
from iwlora.training.dry_run.run_cost import MemoryCost, RunCost
from iwlora.training.recipe import Recipe

NOTHING: dict[str, Any] = dict.fromkeys([field.name for field in fields(RunCost)], 0)
MEMORY = MemoryCost(2**30, weights=0, state=0, gradients=0, activations=0, workspace=0, reached=0)
SECOND_A_STEP = RunCost(**{**NOTHING, "step_seconds": 1.0, "memory": MEMORY})


def test_the_estimate_lists_runs_budgets_and_time_and_keeps_nothing(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    methods = ["full", {"name": "lora", "rank": 4}]
    plan = make_plan(methods=methods, search={"lr": [1e-4, 1e-3, 1e-2]})
    announced: list[str] = []
    before = set(tmp_path.iterdir())
    text = estimate_cost(plan, 2, announced.append)
    assert "lora: 2 runs + at most 15 trials, 96 training rows, 1,664 adapter parameters" in text
    assert "full: 2 runs + at most 15 trials, 96 training rows, no budget" in text
    assert "s a step, about" in text
    assert "search: at most 45 training steps an arm" in text, "15 times 86 rows in steps of 32"
    assert "\npeak memory of the largest run: about " in text
    assert "at most 34 runs on" in text
    assert text.endswith("with 2 at once")
    assert announced == ["timing steps of full", "timing steps of lora"]
    assert set(tmp_path.iterdir()) == before


@pytest.mark.quick
def test_with_stop_the_time_is_from_the_first_draws_to_the_most(
    make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """96 rows in batches of 32 are three steps of a second, and nothing else takes time."""
    monkeypatch.setattr(cost_estimate, "estimate_run_cost", lambda *_, **__: SECOND_A_STEP)
    plan = make_plan(seeds=None, stop={"difference": 1.0, "max_seeds": 20})
    lines = estimate_cost(plan, 2, lambda _: None).splitlines()
    assert lines[0].startswith("lora: 5 to 20 runs, 96 training rows")
    assert lines[0].endswith("about 15.0 s to 1 min 00 s")
    assert lines[2] == "peak memory of the largest run: about 1.00 GiB"
    assert lines[-1].startswith("10 to 40 runs on ")
    assert ", 5 to 20 draws of an arm: about 15.0 s to 1 min 00 s with 2 at once" in lines[-1]


@pytest.mark.quick
def test_a_search_takes_from_one_draw_of_the_grid_to_its_limit(
    make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials of three steps: 3 to 15 of the default, exactly 3 of the former search."""
    monkeypatch.setattr(cost_estimate, "estimate_run_cost", lambda *_, **__: SECOND_A_STEP)
    grid: dict[str, Any] = {"lr": [1e-4, 1e-3, 1e-2]}
    stop = {"difference": 1.0, "max_seeds": 20}
    lines = estimate_cost(make_plan(seeds=None, stop=stop, search=grid), 1, print).splitlines()
    assert lines[0].startswith("lora: 5 to 20 runs + at most 15 trials, ")
    assert lines[0].endswith("about 24.0 s to 1 min 45 s")
    assert lines[-1].startswith("16 to 70 runs on ")
    grid["options"] = {"dropout": [0.0, 0.1], "weight_decay": [0.0, 0.1]}
    lines = estimate_cost(make_plan(seeds=None, stop=stop, search=grid), 1, print).splitlines()
    assert lines[0].startswith("lora: 5 to 20 runs + at most 12 trials, "), "3 for each of 4"
    assert lines[0].endswith("about 51.0 s to 1 min 36 s"), "each combination has a first draw"
    grid["max_steps"] = 9 * 12 + 1
    lines = estimate_cost(make_plan(seeds=None, stop=stop, search=grid), 1, print).splitlines()
    assert lines[0].startswith("lora: 5 to 20 runs + at most 36 trials, "), "9 for each of 4"
    former = make_plan(search={"lr": grid["lr"], "rule": "best-score"})
    lines = estimate_cost(former, 1, print).splitlines()
    assert lines[0].startswith("lora: 2 runs + 3 trials, ")
    assert lines[0].endswith("about 15.0 s")


@pytest.mark.quick
def test_arms_that_skip_other_numbers_of_blocks_fill_their_own_store(
    make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = {"lora": 2, "head": 6, "bitfit": 2}

    def estimated(recipe: Recipe, **_: Any) -> RunCost:
        blocks = skipped[recipe.method.name]
        return replace(SECOND_A_STEP, fill_seconds=600.0, frozen_blocks=blocks)

    monkeypatch.setattr(cost_estimate, "estimate_run_cost", estimated)
    plan = make_plan(methods=[*skipped], unequal_budgets=True)
    arms = estimate_cost(plan, 1, print).splitlines()[:3]
    filling = {line.partition(":")[0]: "about 10 min" in line for line in arms}
    assert filling == {"lora": True, "head": True, "bitfit": False}
