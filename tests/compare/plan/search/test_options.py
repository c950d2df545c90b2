"""Options that are searched with the learning rate: one limit, the same draws, the lowest loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.search.learning_rate import SearchSettings
from iwlora.compare.plan.search.options import (
    best_combination,
    option_combinations,
    option_problems,
    with_options,
)
from iwlora.errors import IwloraError
from iwlora.results.comparison.record import Search, Trial
from iwlora.training.state.run_folder import RunDir
from simulated_runs import SimulatedExecutor, simulate

pytestmark = pytest.mark.quick

GRID = [1e-4, 1e-3, 1e-2]
OPTIONS = {"dropout": [0.0, 0.1], "weight_decay": [0.0, 0.01]}
MakePlan = Callable[..., Plan]


def settings(**changes: Any) -> SearchSettings:
    return SearchSettings.model_validate({"lr": GRID, "seeds": [7], **changes})


def test_every_combination_of_an_arms_own_options_in_an_order_of_the_seed() -> None:
    search = settings(options={**OPTIONS, "alpha": [1e-4, 1e-2]})
    lora = option_combinations(search, {"name": "lora"})
    assert sorted(lora, key=lambda each: [*each.values()]) == [
        {"dropout": d, "weight_decay": w} for d in (0.0, 0.1) for w in (0.0, 0.01)
    ]
    assert len(option_combinations(search, {"name": "iw-lora"})) == 8
    orders = {
        str(option_combinations(settings(options=OPTIONS, seeds=[s]), {"name": "lora"}))
        for s in range(9)
    }
    assert len(orders) > 1
    assert option_combinations(settings(), {"name": "lora"}) == [{}]


def test_options_go_where_they_belong() -> None:
    arm = {"name": "lora", "rank": 8, "train": {"warmup": 0.2}}
    changed = with_options(arm, {"dropout": 0.1, "weight_decay": 0.01})
    assert changed == {**arm, "dropout": 0.1, "train": {"warmup": 0.2, "weight_decay": 0.01}}


def test_the_lowest_loss_within_draws_decides() -> None:
    """The second combination has an easier draw only: its mean loss is lower, its effect is not."""
    losses = {
        ("a", 7): 0.8,
        ("b", 7): 0.9,
        ("a", 8): 0.4,
        ("b", 8): 0.5,
        ("b", 9): 0.1,
        ("a", 9): 0.05,
    }
    trials = [
        Trial(lr=1e-3, seed=seed, state="done", score=0.5, loss=loss, options={"x": x})
        for (x, seed), loss in losses.items()
    ]
    assert best_combination(trials) == {"x": "a"}
    diverged = [Trial(lr=1e-3, seed=7, state="diverged", options={"x": "a"})]
    assert best_combination([*diverged, *trials[1::2]]) == {"x": "b"}
    assert best_combination(diverged) is None


def test_a_loss_that_is_not_finite_loses_and_is_not_replaced_by_a_score() -> None:
    """A score of 0.9 is no loss of -0.9."""
    fine = [
        Trial(lr=lr, seed=7, state="done", score=0.8, loss=0.4, options={"x": "fine"})
        for lr in GRID
    ]
    overflowed = [
        Trial(lr=lr, seed=7, state="done", score=0.9, options={"x": "overflowed"}) for lr in GRID
    ]
    assert best_combination([*fine, *overflowed]) == {"x": "fine"}
    assert best_combination([*overflowed, *fine[:1]]) == {"x": "fine"}
    assert best_combination(overflowed) == {"x": "overflowed"}, "a task without losses"


def test_what_cannot_be_searched_is_refused() -> None:
    arms = [{"name": "lora"}]
    (problem,) = option_problems(settings(options={"dropuot": [0.1]}), arms, False)
    assert "did you mean 'dropout'" in problem
    (problem,) = option_problems(settings(options={"rank": [4, 8]}), arms, False)
    assert "unequal_budgets=true" in problem
    assert option_problems(settings(options={"rank": [4, 8]}), arms, True) == []
    with pytest.raises(ValueError, match="rule=best-score searches no options"):
        settings(options=OPTIONS, rule="best-score")


def test_a_value_that_the_method_refuses_is_an_error_of_the_recipe(make_plan: MakePlan) -> None:
    with pytest.raises(IwloraError, match=r"method\.dropout=7"):
        make_plan(search={"lr": GRID, "options": {"dropout": [0.1, 7]}})


def test_the_chosen_options_are_reported_and_the_limit_holds(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    def outcome(recipe: Any, _: int) -> float:
        score = 0.9 - 0.1 * (math.log10(recipe.train.lr) + 3) ** 2
        return score - 0.2 * (recipe.method.dropout != 0.1) - 0.1 * (recipe.train.weight_decay > 0)

    plan = make_plan(search={"lr": GRID, "seeds": [5, 6, 7], "options": OPTIONS})
    executor = SimulatedExecutor(outcome, jobs=3)
    failed, announced = simulate(plan, tmp_path / "out", executor)
    assert failed == []
    for label, arm in Search.load(tmp_path / "out" / "search.json").arms.items():
        assert arm.options == {"dropout": 0.1, "weight_decay": 0.0}
        assert arm.lr == 1e-3
        assert arm.steps is not None
        assert arm.max_steps == 15 * 3, "the limit without options"
        assert arm.steps <= arm.max_steps
        assert len(arm.trials) == 4 * 3, "one draw of the grid for each combination"
        reported = RunDir.finished(tmp_path / "out" / label / "seed-0").recipe()
        assert reported.method.model_dump()["dropout"] == 0.1
        assert reported.train.weight_decay == 0.0
        assert reported.train.seed == 0
    assert any(
        "dropout=0.1,weight_decay=0.0, learning rate 0.001 from" in line for line in announced
    )
    again = SimulatedExecutor(lambda *_: 1)
    assert simulate(plan, tmp_path / "out", again)[0] == again.started == []


def test_combinations_beyond_the_limit_are_left_out_and_it_says_so(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(search={"lr": GRID, "seeds": [5], "options": OPTIONS, "max_steps": 7 * 3})
    simulate(plan, tmp_path / "out", SimulatedExecutor())
    for arm in Search.load(tmp_path / "out" / "search.json").arms.values():
        assert len({str(trial.options) for trial in arm.trials}) == 2
        assert "2 of 4 combinations of search.options were tried" in str(arm.remark)
