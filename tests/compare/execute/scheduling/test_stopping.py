"""Sequential comparisons: which draws begin, which arms end, and where a later start goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.statistics.analysis import analyze
from iwlora.errors import IwloraError
from iwlora.results.comparison import load_comparison
from iwlora.training.recipe import Recipe
from simulated_runs import SimulatedExecutor, simulate

MakePlan = Callable[..., Plan]
THREE_ARMS = [
    {"name": "lora", "rank": 4},
    {"name": "iw-lora", "rank": 4},
    {"name": "iw-lora", "rank": 4, "label": "other"},
]


def scored(**means: float) -> Callable[[Recipe, int], float]:
    """Scores around the mean of each arm, with a standard deviation of 0.6 points."""

    def score(recipe: Recipe, _: int) -> float:
        rng = np.random.default_rng([42, recipe.train.seed, len(recipe.label or "")])
        mean = means.get((recipe.label or "").replace("-", "_"), 0.8)
        return float(mean + 0.006 * rng.standard_normal())

    return score


def sequential(make_plan: MakePlan, **stop: Any) -> Plan:
    return make_plan(methods=THREE_ARMS, seeds=None, stop={"difference": 1.0, **stop})


class ShuffledExecutor(SimulatedExecutor):
    """Runs end in a random order, those with ``slow`` in their path when no other is running."""

    def __init__(self, outcome: Callable[[Recipe, int], float | int], jobs: int, slow: str) -> None:
        super().__init__(outcome, jobs)
        self._slow, self._random = slow, Random(jobs)

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        quick = [folder for folder in self.running if self._slow not in folder.as_posix()]
        ends = self._random.choice(quick or self.running)
        self.running.remove(ends)
        self.running.insert(0, ends)
        return super().wait(timeout)


def draws(executor: SimulatedExecutor) -> Counter[str]:
    """How many draws each arm had."""
    return Counter(folder.parent.name for folder in executor.started)


@pytest.mark.quick
def test_arms_end_with_their_verdict_and_the_others_go_on(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    executor = SimulatedExecutor(scored(iw_lora=0.9, other=0.804))
    failed, announced = simulate(sequential(make_plan), tmp_path / "out", executor)
    assert failed == []
    count = draws(executor)
    assert count["iw-lora"] == 6, "the fewest that can decide for two arms"
    assert count["iw-lora"] < count["other"] == count["lora"] < 40
    (better,) = (line for line in announced if line.startswith("iw-lora: better"))
    assert better.startswith("iw-lora: better than lora after 6 draws (+10.")
    assert any(line.startswith("other: within 1 point of lora after") for line in announced)
    (outlook,) = (line for line in announced if "power within 40 draws" in line)
    assert outlook.startswith("other: "), "one arm was open"
    assert "core-hours) (" in outlook
    assert " fixed seeds: " in outlook
    comparison = load_comparison(tmp_path / "out")
    assert comparison.missing == ()
    assert len(comparison.of("iw-lora")) == 6
    assert not (tmp_path / "out" / "iw-lora" / "seed-6").exists()


@pytest.mark.parametrize(("jobs", "late"), [(7, False), (1, True)])
def test_neither_jobs_nor_failures_let_a_comparison_end_without_verdicts(
    make_plan: MakePlan, tmp_path: Path, jobs: int, late: bool
) -> None:
    """As the only arm, iw-lora would be better after its first draws; other has its scores late."""

    def outcome(recipe: Recipe, _: int) -> float | int:
        seed, label = recipe.train.seed, recipe.label or ""
        if late and label == "other" and seed < 6:
            return 1
        noise = np.random.default_rng([16, seed, len(label)]).standard_normal()
        mean = {"iw-lora": 0.81, "other": 0.802}.get(label, 0.8)
        return float(mean + 0.006 * noise)

    executor = ShuffledExecutor(outcome, jobs, slow="/other/")
    _, announced = simulate(sequential(make_plan), tmp_path / "out", executor)
    begun = Counter(dict.fromkeys(draws(executor), 0))
    begun.update({arm: len([*(tmp_path / "out" / arm).glob("seed-*")]) for arm in begun})
    last = 23 if late else 16
    assert begun == {"lora": last, "iw-lora": 10, "other": last}
    (better,) = (line for line in announced if line.startswith("iw-lora: better"))
    assert "after 10 draws" in better


def test_a_draw_counts_once_those_before_it_have_ended(make_plan: MakePlan, tmp_path: Path) -> None:
    """Four of the first draws would do, but not the four that happen to end first."""
    executor = ShuffledExecutor(lambda recipe, _: 0.8, jobs=10, slow="/iw-lora/seed-0")
    plan = make_plan(seeds=None, stop={"difference": 1.0})
    _, announced = simulate(plan, tmp_path / "out", executor)
    (line,) = (line for line in announced if "within" in line)
    assert line == "iw-lora: within 1 point of lora after 5 draws (+0.00 [+0.00, +0.00])"


def test_more_seeds_go_on_where_the_comparison_ended(make_plan: MakePlan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = scored(iw_lora=0.9, other=0.810)
    few = SimulatedExecutor(outcome)
    _, announced = simulate(sequential(make_plan, max_seeds=7), out, few)
    assert any("less than the 80% asked for: raise stop.max_seeds" in line for line in announced)
    assert draws(few) == {"lora": 7, "iw-lora": 6, "other": 7}
    more = SimulatedExecutor(outcome)
    simulate(sequential(make_plan, max_seeds=30), out, more)
    assert set(draws(more)) == {"lora", "other"}
    at_once = SimulatedExecutor(outcome)
    simulate(sequential(make_plan, max_seeds=30), tmp_path / "at once", at_once)
    assert draws(at_once) == draws(few) + draws(more)
    again = SimulatedExecutor(outcome)
    simulate(sequential(make_plan, max_seeds=30), out, again)
    assert not again.started, "every arm has a verdict"


def test_promises_may_not_change_after_the_scores_were_seen(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    simulate(sequential(make_plan), tmp_path / "out", SimulatedExecutor(scored(iw_lora=0.9)))
    for changed in ({"difference": 0.5}, {"error": 0.1}):
        with pytest.raises(IwloraError, match="only max_seeds may change"):
            simulate(sequential(make_plan, **changed), tmp_path / "out", SimulatedExecutor())


def test_failed_runs_are_missing_draws_and_the_comparison_ends(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    score = scored(iw_lora=0.9, other=0.9)

    def outcome(recipe: Recipe, attempt: int) -> float | int:
        return 1 if recipe.label == "other" else score(recipe, attempt)

    executor = SimulatedExecutor(outcome)
    plan = sequential(make_plan, max_seeds=8)
    failed, _ = simulate(plan, tmp_path / "out", executor)
    assert [run.seed for run in failed] == list(range(8))
    comparison = load_comparison(tmp_path / "out")
    assert {label for label, _, _ in comparison.missing} == {"other"}
    assert len(comparison.missing) == 8
    ((iw_lora,), *_) = [task.differences for task in analyze([comparison]).tasks]
    assert iw_lora.family == 2, "the report corrects for the arm without a score too"


def test_equal_scores_end_within_before_there_is_an_interval(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    executor = SimulatedExecutor(lambda recipe, _: 0.8)
    plan = make_plan(seeds=None, stop={"difference": 1.0})
    _, announced = simulate(plan, tmp_path / "out", executor)
    (line,) = (line for line in announced if "within" in line)
    assert line == "iw-lora: within 1 point of lora after 4 draws (+0.00)"


def test_trials_of_a_search_are_the_same_for_any_number_of_seeds(make_plan: MakePlan) -> None:
    search = {"lr": [1e-4, 1e-3, 1e-2]}
    plans = [
        make_plan(seeds=None, search=search, stop={"difference": 1.0, "max_seeds": n})
        for n in (10, 20)
    ]
    assert {run.seed for plan in plans for run in plan.trials} == {1000, 1001, 1002}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": {"difference": 1.0}}, "seeds and stop exclude each other"),
        ({"seeds": None, "stop": {}}, "stop.difference: missing"),
        ({"seeds": None, "stop": {"difference": -1}}, "stop.difference=-1: input should be great"),
        ({"seeds": None, "stop": 1.0}, "stop=1.0: accepted: a mapping"),
        ({"seeds": None, "stop": {"difference": 1, "max_seed": 9}}, "did you mean 'max_seeds'?"),
        (
            {"seeds": None, "stop": {"difference": 1.0, "max_seeds": 5}, "methods": THREE_ARMS},
            "stop.max_seeds=5: with 3 arms and an error of 0.05 no verdict is possible before 6",
        ),
        (
            {"seeds": None, "stop": {"difference": 1.0}, "methods": ["lora"]},
            "stop: it needs an arm to compare with another",
        ),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(
    make_plan: MakePlan, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(IwloraError) as refused:
        make_plan(**changes)
    assert message in str(refused.value)
