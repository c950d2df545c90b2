"""``iwlora compare --dry-run``: runs, budgets and time before anything is executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iwlora.compare.plan.cost_estimate import estimate_cost
from iwlora.compare.plan.planned_runs import Plan


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
    assert "at most 34 runs on" in text
    assert text.endswith("with 2 at once")
    assert announced == ["timing steps of full", "timing steps of lora"]
    assert set(tmp_path.iterdir()) == before
