"""The learning-rate search: equal for all arms, on held-out data, and marked where it is weak."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from iwlora.compare.plan.learning_rate_search import choose_learning_rate, trial_order
from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.recipe import load_plan
from iwlora.errors import IwloraError
from iwlora.results.loading import load_comparison
from iwlora.results.search import Trial, load_search
from iwlora.training.state.run_folder import RunDir
from simulated_runs import SimulatedExecutor, best_at_1e_3, simulate

GRID = [1e-4, 1e-3, 1e-2]
Load = Callable[..., Plan]


@pytest.fixture
def plan_of(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> Load:
    def load(**changes: Any) -> Plan:
        settings = {
            "model": str(tiny_bert),
            "task": reviews,
            "methods": [{"name": "lora", "rank": 4}, {"name": "iw-lora", "rank": 4}],
            "seeds": [0, 1],
            "search": {"lr": GRID},
            "train": {"epochs": 1, "max_length": 32},
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return load_plan(str(path))

    return load


def trials(scores: dict[float, float | None], **changes: Any) -> list[Trial]:
    done = {"state": "done", "loss": 0.5, "seconds": 1.0}
    failed = {"state": "failed"}
    return [
        Trial(lr=lr, score=score, **{"seed": 7, **(failed if score is None else done), **changes})
        for lr, score in scores.items()
    ]


def test_every_arm_gets_the_same_trials_and_then_its_own_rate(
    plan_of: Load, tmp_path: Path
) -> None:
    plan = plan_of()
    assert len(plan.trials) == 6
    for run in plan.trials:
        assert run.recipe.task.holdout == 0.1
        assert run.seed == run.recipe.train.seed == 2, "a seed that is not reported"
    for run in plan.runs:
        assert run.recipe.task.holdout is None

    def behave(recipe: Any, _: int) -> float:
        shifted = 2.0 if recipe.method.name == "lora" else 1.0
        return best_at_1e_3(recipe.model_copy(update={"train": recipe.train.model_copy(
            update={"lr": recipe.train.lr * shifted})}))  # fmt: skip

    failed, told = simulate(plan, tmp_path / "out", SimulatedExecutor(behave, jobs=2))
    assert failed == []
    chosen = load_search(tmp_path / "out" / "search.json")
    assert {label: one.lr for label, one in chosen.items()} == {"lora": 1e-3, "iw-lora": 1e-3}
    assert all(one.inside and len(one.trials) == 3 for one in chosen.values())
    for label in ("lora", "iw-lora"):
        for seed in (0, 1):
            place = tmp_path / "out" / label / f"seed-{seed}"
            assert json.loads((place / "result.json").read_text())["learning_rate"] == 1e-3
    assert "lora: learning rate 0.001 of 3 trials" in told


def test_the_choice_looks_at_the_trials_alone(plan_of: Load, tmp_path: Path) -> None:
    """A reported score that would favour another rate must not matter."""

    def behave(recipe: Any, _: int) -> float:
        if recipe.task.holdout is None:
            return 0.1
        return 0.9 if recipe.train.lr == 1e-3 else 0.5

    plan = plan_of()
    simulate(plan, tmp_path / "out", SimulatedExecutor(behave))
    again, _ = simulate(plan_of(), tmp_path / "out", SimulatedExecutor(lambda *_: 1))
    assert again == [], "all done: nothing begins and nothing is chosen anew"


def test_a_grown_search_may_choose_anew_and_loses_no_run(plan_of: Load, tmp_path: Path) -> None:
    """More rates move the optimum; what was reported before comes back when it is best again."""
    out = tmp_path / "out"
    simulate(plan_of(), out, SimulatedExecutor())

    def reported() -> dict[str, float]:
        found = sorted(out.glob("*/seed-*/result.json"))
        return {
            f"{file.parent.relative_to(out)}": json.loads(file.read_text())["learning_rate"]
            for file in found
        }

    def better(recipe: Any, _: int) -> float:
        return 0.99 if recipe.train.lr == 2e-3 else best_at_1e_3(recipe)

    grown = {"search": {"lr": [*GRID, 2e-3]}}
    executor = SimulatedExecutor(better)
    failed, told = simulate(plan_of(**grown), out, executor)
    assert failed == []
    assert len(executor.started) == 2 + 4, "the new rate for both arms, and their reported runs"
    assert set(reported().values()) == {2e-3}
    kept = out / "lora" / "search" / "lr-0.001" / "former" / "seed-0"
    assert f"lora, seed 0: its run at the learning rate chosen before is kept in {kept}" in told
    assert RunDir.finished(kept).recipe().train.lr == 1e-3
    assert load_comparison(out).values("lora", "accuracy") == {0: 0.99, 1: 0.99}

    again = SimulatedExecutor(lambda *_: 1)
    failed, _ = simulate(plan_of(), out, again)
    assert (failed, again.started) == ([], []), "the smaller grid finds its runs again"
    assert set(reported().values()) == {1e-3}
    assert len(reported()) == 4
    assert RunDir.finished(out / "lora" / "search" / "lr-0.002" / "former" / "seed-0")


def test_only_a_run_that_differs_in_its_rate_alone_makes_room(
    plan_of: Load, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    simulate(plan_of(), out, SimulatedExecutor())
    place = out / "lora" / "seed-0"
    stored = (place / "recipe.yaml").read_text()
    (place / "recipe.yaml").write_text(stored.replace("epochs: 1.0", "epochs: 2.0"))
    assert (place / "recipe.yaml").read_text() != stored
    grown = plan_of(search={"lr": [*GRID, 2e-3]})
    with pytest.raises(IwloraError, match=r"lora/seed-0 belongs to another recipe"):
        simulate(grown, out, SimulatedExecutor(lambda recipe, _: 0.99 * (recipe.train.lr == 2e-3)))
    assert (place / "result.json").is_file()


def test_room_that_cannot_be_made_is_told_and_nothing_is_lost(
    plan_of: Load, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    simulate(plan_of(), out, SimulatedExecutor())
    (out / "lora" / "search" / "lr-0.001" / "former").write_text("in the way")
    with pytest.raises(IwloraError, match="cannot move the run of lora, seed 0 out of"):
        simulate(
            plan_of(search={"lr": [*GRID, 2e-3]}),
            out,
            SimulatedExecutor(lambda recipe, _: 0.99 * (recipe.train.lr == 2e-3)),
        )
    assert (out / "lora" / "seed-0" / "result.json").is_file()


@pytest.mark.parametrize(
    ("scores", "lr", "words"),
    [
        ({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.7}, 1e-3, None),
        ({1e-4: 0.9, 1e-3: 0.8, 1e-2: 0.7}, 1e-4, "is the smallest that was tried"),
        ({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.9}, 1e-2, "is the largest that was tried"),
        ({1e-4: 0.6, 1e-3: 0.8, 1e-2: None}, 1e-3, None),  # it diverged beyond the optimum
        ({1e-4: None, 1e-3: None, 1e-2: None}, None, "no trial of its search finished"),
        ({1e-4: 0.8, 1e-3: 0.8, 1e-2: 0.8}, 1e-4, "smallest"),
    ],
)
def test_an_arm_is_marked_where_the_optimum_is_not_inside(
    scores: dict[float, float | None], lr: float | None, words: str | None
) -> None:
    choice = choose_learning_rate("lora", trials(scores))
    assert choice.lr == lr
    assert choice.inside == (words is None)
    assert (words or "") in (choice.remark or "")


def test_equal_scores_are_told_apart_by_the_loss_and_seeds_are_averaged() -> None:
    tied = [
        Trial(lr=lr, seed=7, state="done", score=score, loss=loss)
        for lr, score, loss in ((1e-4, 0.8, 0.6), (1e-3, 0.8, 0.4), (1e-2, 0.7, 0.1))
    ]
    assert choose_learning_rate("lora", tied).lr == 1e-3
    lucky = [*tied, *trials({1e-4: 0.75, 1e-3: 0.75, 1e-2: 0.9}, seed=8)]
    assert choose_learning_rate("lora", lucky).lr == 1e-2
    broken = [Trial(lr=1e-2, seed=8, state="failed"), *tied, *trials({1e-4: 0.7, 1e-3: 0.7})]
    assert choose_learning_rate("lora", broken).lr == 1e-3, "a rate that fails with one seed is out"


def test_trials_that_were_not_begun_are_told() -> None:
    some = [*trials({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.7}), Trial(lr=1e-2, seed=8, state="not begun")]
    assert "1 of 4 trials of its search did not start" in str(
        choose_learning_rate("lora", some).remark
    )


def test_an_arm_whose_trials_take_longer_gets_the_same_seconds(
    plan_of: Load, tmp_path: Path
) -> None:
    plan = plan_of(search={"lr": GRID, "seeds": [5, 6], "max_seconds": 30})
    executor = SimulatedExecutor(lambda recipe, _: best_at_1e_3(recipe), seconds=10.0)
    simulate(plan, tmp_path / "out", executor)
    begun = [place for place in executor.started if "search" in place.parts]
    assert len(begun) == 2 * 3, "three trials of 10 s an arm, the first seed's"
    assert {place.name for place in begun} == {"seed-5"}
    chosen = load_search(tmp_path / "out" / "search.json")
    for label in ("lora", "iw-lora"):
        states = [trial.state for trial in chosen[label].trials]
        assert states.count("not begun") == 3
        assert "search.max_seconds was reached; raise it" in str(chosen[label].remark)


def test_a_search_cut_short_knows_the_middle() -> None:
    assert [lr for lr, _ in trial_order([1, 2, 3, 4, 5], [0])] == [3, 4, 2, 5, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
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
def test_an_unequal_search_is_refused(plan_of: Load, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(IwloraError, match=words):
        plan_of(**changes)


def test_an_arm_may_have_a_grid_of_its_own_of_as_many_rates(plan_of: Load) -> None:
    own = {"name": "full", "search": {"lr": [1e-5, 3e-5, 1e-4]}}
    plan = plan_of(methods=[own, {"name": "lora", "rank": 4}])
    rates = {run.recipe.train.lr for run in plan.trials if run.label == "full"}
    assert rates == {1e-5, 3e-5, 1e-4}
    assert len(plan.trials) == 6
