"""A search that grows may choose another learning rate, and loses no run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError
from iwlora.results.comparison import load_comparison
from iwlora.results.layout import comparison_of
from iwlora.training.state.run_folder import RunDir
from simulated_runs import SimulatedExecutor, best_at_1e_3, simulate

GRID = [1e-4, 1e-3, 1e-2]
SEARCH = {"lr": GRID, "rule": "best-score"}
GROWN = {"search": {**SEARCH, "lr": [*GRID, 2e-3]}}
MakePlan = Callable[..., Plan]


def best_at_2e_3(recipe: Any, _: int) -> float:
    return 0.99 if recipe.train.lr == 2e-3 else best_at_1e_3(recipe)


@pytest.fixture
def compared(make_plan: MakePlan, tmp_path: Path) -> Path:
    """A comparison whose search chose 1e-3."""
    simulate(make_plan(search=SEARCH), tmp_path / "out", SimulatedExecutor())
    return tmp_path / "out"


def reported(comparison: Path) -> list[float]:
    """The learning rates of the reported runs."""
    files = comparison.glob("*/seed-*/result.json")
    return [json.loads(file.read_text())["learning_rate"] for file in files]


@pytest.mark.quick
def test_a_superseded_run_is_kept_and_reused(make_plan: MakePlan, compared: Path) -> None:
    assert reported(compared) == [1e-3] * 4
    executor = SimulatedExecutor(best_at_2e_3)
    failed, announced = simulate(make_plan(**GROWN), compared, executor)
    assert failed == []
    assert len(executor.started) == 2 + 4, "the new trial of both arms, and their reported runs"
    assert reported(compared) == [2e-3] * 4
    kept = compared / "lora" / "search" / "lr-0.001" / "former" / "seed-0"
    message = f"lora, seed 0: the run with the former choice of its search is kept in {kept}"
    assert message in announced
    assert RunDir.finished(kept).recipe().train.lr == 1e-3
    assert load_comparison(compared).values("lora", "accuracy") == {0: 0.99, 1: 0.99}

    again = SimulatedExecutor(lambda *_: 1)
    failed, _ = simulate(make_plan(search=SEARCH), compared, again)
    assert failed == again.started == [], "the smaller grid finds its runs again"
    assert reported(compared) == [1e-3] * 4
    assert RunDir.finished(compared / "lora" / "search" / "lr-0.002" / "former" / "seed-0")


def test_a_run_with_options_chosen_before_is_kept_and_reused(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    """Both choices have the same learning rate. A trial takes three steps."""

    def outcome(recipe: Any, _: int) -> float:
        return best_at_1e_3(recipe) - abs(recipe.train.weight_decay - 0.1)

    few, more = (
        make_plan(
            search={"lr": GRID, "seeds": [5], "max_steps": 27, "options": {"weight_decay": values}}
        )
        for values in ([0.0, 0.3], [0.0, 0.3, 0.1])
    )
    out = tmp_path / "out"
    simulate(few, out, SimulatedExecutor(outcome))
    failed, announced = simulate(more, out, SimulatedExecutor(outcome))
    assert failed == []
    kept = out / "lora" / "search" / "weight_decay=0.0" / "lr-0.001" / "former" / "seed-0"
    assert any(line.endswith(f"is kept in {kept}") for line in announced)
    assert RunDir.finished(out / "lora" / "seed-0").recipe().train.weight_decay == 0.1
    assert comparison_of(kept) == out
    assert len(load_comparison(out).runs) == 4

    again = SimulatedExecutor(lambda *_: 1)
    assert simulate(few, out, again)[0] == again.started == []
    assert RunDir.finished(out / "lora" / "seed-0").recipe().train.weight_decay == 0.0


def test_a_run_that_differs_in_more_than_its_learning_rate_is_not_moved(
    make_plan: MakePlan, compared: Path
) -> None:
    run = compared / "lora" / "seed-0"
    stored = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(stored.replace("epochs: 1.0", "epochs: 2.0"))
    assert (run / "recipe.yaml").read_text() != stored
    with pytest.raises(IwloraError, match=r"lora/seed-0 belongs to another recipe"):
        simulate(make_plan(**GROWN), compared, SimulatedExecutor(best_at_2e_3))
    assert (run / "result.json").is_file()


def test_a_run_that_cannot_be_moved_is_reported_and_not_lost(
    make_plan: MakePlan, compared: Path
) -> None:
    (compared / "lora" / "search" / "lr-0.001" / "former").write_text("in the way")
    with pytest.raises(IwloraError, match="cannot move the run of lora, seed 0 out of"):
        simulate(make_plan(**GROWN), compared, SimulatedExecutor(best_at_2e_3))
    assert (compared / "lora" / "seed-0" / "result.json").is_file()
