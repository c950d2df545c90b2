"""The learning-rate search: equal for all arms, on held-out data, and marked where it is weak."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.learning_rate_search import choose_learning_rate, trial_order
from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError
from iwlora.results.comparison.record import Search, Trial
from iwlora.results.layout import trial_folder
from simulated_runs import SimulatedExecutor, best_at_1e_3, simulate

pytestmark = pytest.mark.quick

GRID = [1e-4, 1e-3, 1e-2]
MakePlan = Callable[..., Plan]


@pytest.fixture
def search_plan(make_plan: MakePlan) -> MakePlan:
    return lambda **changes: make_plan(**{"search": {"lr": GRID}, **changes})


def trials(scores: dict[float, float | None], seed: int = 7) -> list[Trial]:
    """One trial for each learning rate; None: it failed."""
    failed, done = {"state": "failed"}, {"state": "done", "loss": 0.5}
    return [
        Trial(lr=lr, seed=seed, score=score, **(failed if score is None else done))
        for lr, score in scores.items()
    ]


def by_score(trials: list[Trial], metric: str | None = None) -> float | None:
    return choose_learning_rate("lora", trials, metric, rule="best-score").lr


def test_every_arm_gets_the_same_trials_and_then_its_best_learning_rate(
    search_plan: MakePlan, tmp_path: Path
) -> None:
    plan = search_plan()
    assert len(plan.trials) == 6
    for run in plan.trials:
        assert run.recipe.task.holdout == 0.1
        assert run.seed == run.recipe.train.seed == 2, "a seed that is not reported"
    for run in plan.runs:
        assert run.recipe.task.holdout is None

    def outcome(recipe: Any, _: int) -> float:
        """Reported scores favour another learning rate than the trials: they must not matter."""
        if recipe.task.holdout is None:
            return 0.9 if recipe.train.lr == 1e-4 else 0.1
        factor = 2.0 if recipe.method.name == "lora" else 1.0
        train = recipe.train.model_copy(update={"lr": recipe.train.lr * factor})
        return best_at_1e_3(recipe.model_copy(update={"train": train}))

    out = tmp_path / "out"
    failed, announced = simulate(plan, out, SimulatedExecutor(outcome, jobs=2))
    assert failed == []
    choices = Search.load(out / "search.json").arms
    assert {label: arm.lr for label, arm in choices.items()} == {"lora": 1e-3, "iw-lora": 1e-3}
    assert all(arm.inside and len(arm.trials) == 3 for arm in choices.values())
    for label in ("lora", "iw-lora"):
        for seed in (0, 1):
            result = json.loads((out / label / f"seed-{seed}" / "result.json").read_text())
            assert result["learning_rate"] == 1e-3
    assert "lora: learning rate 0.001 of 3 trials" in announced

    again = SimulatedExecutor(lambda *_: 1)
    assert simulate(search_plan(), out, again)[0] == again.started == []


@pytest.mark.parametrize(
    ("scores", "lr", "remark"),
    [
        ({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.7}, 1e-3, None),
        ({1e-4: 0.9, 1e-3: 0.8, 1e-2: 0.7}, 1e-4, "is the smallest that was tried"),
        ({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.9}, 1e-2, "is the largest that was tried"),
        ({1e-4: 0.6, 1e-3: 0.8, 1e-2: None}, 1e-3, None),  # it diverged beyond the optimum
        ({1e-4: None, 1e-3: None, 1e-2: None}, None, "no trial of its search finished"),
        ({1e-4: 0.8, 1e-3: 0.8, 1e-2: 0.8}, 1e-4, "smallest"),
    ],
)
def test_an_arm_is_marked_if_the_optimum_is_not_inside_the_grid(
    scores: dict[float, float | None], lr: float | None, remark: str | None
) -> None:
    choice = choose_learning_rate("lora", trials(scores), rule="best-score")
    assert choice.lr == lr
    assert choice.inside == (remark is None)
    assert (remark or "") in (choice.remark or "")


def test_the_loss_decides_between_equal_scores_and_seeds_are_averaged() -> None:
    tied = [
        Trial(lr=lr, seed=7, state="done", score=score, loss=loss)
        for lr, score, loss in ((1e-4, 0.8, 0.6), (1e-3, 0.8, 0.4), (1e-2, 0.7, 0.1))
    ]
    assert by_score(tied) == 1e-3
    second_seed = trials({1e-4: 0.75, 1e-3: 0.75, 1e-2: 0.9}, seed=8)
    assert by_score([*tied, *second_seed]) == 1e-2
    one_failed = [*tied, *trials({1e-4: 0.7, 1e-3: 0.7, 1e-2: None}, seed=8)]
    assert by_score(one_failed) == 1e-3


def test_the_lowest_perplexity_is_the_best() -> None:
    scores: dict[float, float | None] = {1e-4: 20.0, 1e-3: 9.0, 1e-2: 30.0}
    assert by_score(trials(scores), "perplexity") == 1e-3
    assert by_score(trials(scores), "accuracy") == 1e-2


def test_learning_rates_that_agree_to_six_digits_have_their_own_folders() -> None:
    near, other = (trial_folder(Path("c"), "lora", lr, 7) for lr in (0.00012345678, 0.00012345679))
    assert near != other
    assert trial_folder(Path("c"), "lora", 2e-4, 7) == Path("c/lora/search/lr-0.0002/seed-7")


def test_trials_that_did_not_start_are_reported() -> None:
    incomplete = [
        *trials({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.7}),
        Trial(lr=1e-2, seed=8, state="not begun"),
    ]
    remark = choose_learning_rate("lora", incomplete, rule="best-score").remark
    assert "1 of 4 trials of its search did not start" in str(remark)


def test_every_arm_gets_the_same_seconds(search_plan: MakePlan, tmp_path: Path) -> None:
    plan = search_plan(search={"lr": GRID, "seeds": [5, 6], "max_seconds": 30})
    executor = SimulatedExecutor(seconds=10.0)
    simulate(plan, tmp_path / "out", executor)
    started = [folder for folder in executor.started if "search" in folder.parts]
    assert len(started) == 2 * 3, "three trials of 10 s an arm, those of the first seed"
    assert {folder.name for folder in started} == {"seed-5"}
    choices = Search.load(tmp_path / "out" / "search.json").arms
    for label in ("lora", "iw-lora"):
        states = [trial.state for trial in choices[label].trials]
        assert states.count("not begun") == 3
        assert "search.max_seconds was reached" in str(choices[label].remark)


def test_a_search_that_runs_out_of_time_has_tried_the_middle() -> None:
    assert [lr for lr, _ in trial_order([1, 2, 3, 4, 5], [0])] == [3, 4, 2, 5, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"lr": [1e-3, 1e-4]}}, "at least three different learning rates"),
        ({"search": {"lr": GRID, "seeds": []}}, "search.seeds"),
        ({"search": {"lr": GRID, "trials": 3}}, "search.trials: unknown field"),
        ({"search": {"lr": GRID, "max_seconds": 0}}, "search.max_seconds=0"),
        ({"task": {"name": "builtin/entailment", "holdout": 0.1}}, "task.holdout"),
        ({"controls": "yes"}, "controls='yes'"),
        ({"methods": [{"name": "lora", "train": {"lr": 1}}]}, "for one arm alone is unfair"),
        ({"methods": [{"name": "lora", "search": {"lr": [1, 2, 3, 4]}}]}, "more trials would be"),
        ({"methods": [{"name": "lora", "search": {"lr": GRID, "seeds": [1]}}]}, "a grid alone"),
        (
            {"methods": [{"name": "lora", "search": {"lr": GRID}}], "search": None},
            "search for one arm alone is unfair",
        ),
    ],
)
def test_an_unequal_search_is_refused(
    search_plan: MakePlan, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(IwloraError, match=message):
        search_plan(**changes)


def test_an_arm_may_have_its_own_grid_of_equal_length(search_plan: MakePlan) -> None:
    full = {"name": "full", "search": {"lr": [1e-5, 3e-5, 1e-4]}}
    plan = search_plan(methods=[full, {"name": "lora", "rank": 4}])
    tried = {run.recipe.train.lr for run in plan.trials if run.label == "full"}
    assert tried == {1e-5, 3e-5, 1e-4}
    assert len(plan.trials) == 6
