"""The learning-rate search: equal for all arms, on held-out data, and marked where it is weak."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.search.learning_rate import choose_learning_rate, trial_order
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
    assert len(plan.trials) == 2 * 3 * 3
    for run in plan.trials:
        assert run.recipe.task.holdout == 0.1
        assert run.seed == run.recipe.train.seed
        assert run.seed in (2, 3, 4), "seeds that are not reported"
    for run in plan.runs:
        assert run.recipe.task.holdout is None

    def outcome(recipe: Any, _: int) -> float:
        """Reported scores favor another learning rate than the trials: they must not matter."""
        if recipe.task.holdout is None:
            return 0.9 if recipe.train.lr == 1e-4 else 0.1
        factor = 2.0 if recipe.method.name == "lora" else 1.0
        train = recipe.train.model_copy(update={"lr": recipe.train.lr * factor})
        return best_at_1e_3(recipe.model_copy(update={"train": train}))

    out = tmp_path / "out"
    failed, announced = simulate(plan, out, SimulatedExecutor(outcome, jobs=2))
    assert failed == []
    choices = Search.load(out / "search.json").arms
    chosen = {label: arm.lr for label, arm in choices.items()}
    assert chosen == {"lora": 6.1e-4, "iw-lora": 1e-3}, "the minima of parabolas"
    for arm in choices.values():
        assert arm.inside
        assert len(arm.trials) == 6, "two draws without noise leave one learning rate"
        assert (arm.steps, arm.max_steps, arm.added) == (6 * 3, 15 * 3, [])
        assert (arm.low, arm.high) == (arm.lr, arm.lr)
    for label in ("lora", "iw-lora"):
        for seed in (0, 1):
            result = json.loads((out / label / f"seed-{seed}" / "result.json").read_text())
            assert result["learning_rate"] == chosen[label]
    text = "learning rate 0.001 (95%: 0.001 to 0.001) from 6 trials, 18 of at most 45 steps"
    assert f"iw-lora: {text}" in announced

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


def test_a_minimum_beside_the_last_learning_rate_is_not_called_the_largest() -> None:
    """The largest one has the lowest loss, and the curve its minimum a little below."""
    losses = {3e-3: 1.0, 9e-3: 0.88, 2.7e-2: 0.87}
    found = choose_learning_rate(
        "head", [Trial(lr=lr, seed=7, state="done", loss=loss) for lr, loss in losses.items()]
    )
    assert not found.inside
    assert found.lr is not None
    assert 9e-3 < found.lr < 2.7e-2
    assert found.remark == (
        f"head: its best learning rate {found.lr:g} lies between two tried ones; 0.027 has the "
        "lower loss and is the largest that was tried, so the best may lie outside; widen search.lr"
    )


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


def test_an_edge_that_a_limit_made_asks_for_a_higher_limit() -> None:
    """The grid goes on beyond the largest learning rate that was tried."""
    cut = [*trials({1e-4: 0.6, 1e-3: 0.8}), Trial(lr=1e-2, seed=7, state="not begun")]
    choice = choose_learning_rate("lora", cut, rule="best-score")
    assert not choice.inside
    assert "1 of 3 trials" in str(choice.remark)
    assert "search.max_seconds was reached; raise it" in str(choice.remark)


def test_trials_of_a_search_have_seeds_that_exist(search_plan: MakePlan) -> None:
    largest = 2**32 - 1
    with pytest.raises(IwloraError, match=r"search\.seeds: missing; the seeds after 4294967295"):
        search_plan(search={"lr": GRID}, seeds=[largest])
    assert search_plan(search={"lr": GRID, "seeds": [1, 2]}, seeds=[largest]).seeds == [largest]


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


def test_the_grid_widens_and_the_steps_stay_below_the_limit_of_all_arms(
    search_plan: MakePlan, tmp_path: Path
) -> None:
    """LoRA wants more than the grid has; the other arm has its optimum inside."""

    def outcome(recipe: Any, _: int) -> float:
        at = -0.5 if recipe.method.name == "lora" else -3.0
        return 0.9 - 0.1 * (math.log10(recipe.train.lr) - at) ** 2

    plan = search_plan(search={"lr": GRID, "seeds": [5, 6]})
    failed, announced = simulate(plan, tmp_path / "out", SimulatedExecutor(outcome, jobs=2))
    assert failed == []
    choices = Search.load(tmp_path / "out" / "search.json").arms
    assert choices["lora"].added == [0.1, 1.0]
    assert choices["lora"].lr == 0.32
    assert choices["iw-lora"].added == []
    assert {arm.max_steps for arm in choices.values()} == {(3 + 2) * 2 * 3}
    assert all((arm.steps or 99) <= 30 for arm in choices.values())
    assert (
        "lora: the best learning rate so far is at the edge of its grid; 0.1 is tried too"
        in announced
    )
    again = SimulatedExecutor(lambda *_: 1)
    assert simulate(plan, tmp_path / "out", again)[0] == again.started == []


def test_a_limit_of_steps_ends_the_search_and_is_checked_before(
    search_plan: MakePlan, tmp_path: Path
) -> None:
    """A trial takes three steps: 86 of 96 rows, 32 at a time."""
    search = {"lr": GRID, "seeds": [5, 6], "max_steps": 4 * 3}
    simulate(search_plan(search=search), tmp_path / "out", SimulatedExecutor())
    for arm in Search.load(tmp_path / "out" / "search.json").arms.values():
        assert [trial.state for trial in arm.trials].count("not begun") == 2
        assert arm.steps == arm.max_steps == 12
        assert "search.max_steps was reached" in str(arm.remark)
    message = "search.max_steps=8: to try each of the 3 learning rates once takes 9 steps"
    with pytest.raises(IwloraError, match=message):
        simulate(
            search_plan(search={**search, "max_steps": 8}), tmp_path / "b", SimulatedExecutor()
        )


def test_a_trial_that_answers_with_one_class_is_marked_and_cannot_win(
    search_plan: MakePlan, tmp_path: Path
) -> None:
    class Answering(SimulatedExecutor):
        """At the learning rate with the best score, all rows get the same answer."""

        def wait(self, timeout: float) -> list[tuple[Path, int]]:
            folder = self.running[0]
            ended = super().wait(timeout)
            answers = "AA" if "lr-0.001" in folder.parts else "AB"
            rows = "".join(
                f"{label},{answer}\n" for label, answer in zip("AB", answers, strict=True)
            )
            (folder / "predictions").mkdir()
            (folder / "predictions" / "validation.csv").write_text(f"label,prediction\n{rows}")
            return ended

    simulate(search_plan(search={"lr": GRID, "seeds": [5]}), tmp_path / "out", Answering())
    for arm in Search.load(tmp_path / "out" / "search.json").arms.values():
        assert {trial.lr: trial.one_class for trial in arm.trials if trial.lr in GRID} == {
            1e-4: False,
            1e-3: True,
            1e-2: False,
        }
        assert arm.lr != 1e-3


def test_a_search_that_is_killed_goes_on_with_the_same_trials(
    search_plan: MakePlan, tmp_path: Path
) -> None:
    class Killed(SimulatedExecutor):
        """Ends the comparison after a few runs."""

        def start(self, folder: Path, log: Path) -> None:
            if len(self.started) == 9:
                raise KeyboardInterrupt
            super().start(folder, log)

    plan = search_plan()
    whole, parts = SimulatedExecutor(), list[Path]()
    simulate(plan, tmp_path / "whole", whole)
    for _ in range(20):
        executor = Killed(jobs=2)
        try:
            simulate(plan, tmp_path / "parts", executor)
        except KeyboardInterrupt:
            parts += executor.started
            continue
        parts += executor.started
        break
    expected, found = (
        {folder.relative_to(root).as_posix() for folder in started}
        for root, started in ((tmp_path / "whole", whole.started), (tmp_path / "parts", parts))
    )
    assert found == expected
    stored = [
        Search.load(tmp_path / name / "search.json").arms["lora"] for name in ("whole", "parts")
    ]
    assert stored[0] == stored[1]


def test_a_comparison_keeps_the_rule_that_it_began_with(
    search_plan: MakePlan, tmp_path: Path
) -> None:
    """One of an older version, whose file names none, chose the best score of one draw."""
    out = tmp_path / "out"
    simulate(search_plan(search={"lr": GRID, "rule": "best-score"}), out, SimulatedExecutor())
    record = (out / "comparison.yaml").read_text()
    assert "search_rule: best-score\n" in record
    (out / "comparison.yaml").write_text(record.replace("search_rule: best-score\n", ""))
    again = SimulatedExecutor(lambda *_: 1)
    assert simulate(search_plan(), out, again)[0] == again.started == []
    assert {arm.rule for arm in Search.load(out / "search.json").arms.values()} == {"best-score"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"lr": GRID, "rule": "loss"}}, "unknown search.rule 'loss'"),
        ({"search": {"lr": GRID, "widen": -1}}, "search.widen=-1"),
        ({"search": {"lr": GRID, "max_steps": 0}}, "search.max_steps=0"),
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
    assert len(plan.trials) == 2 * 3 * 3
