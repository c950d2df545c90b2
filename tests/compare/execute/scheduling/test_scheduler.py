"""The scheduler: what is retried, what never counts as a result, what is done already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.report.content import build_content
from iwlora.compare.report.write import write_content
from iwlora.compare.statistics.analysis import analyze
from iwlora.errors import IwloraError
from iwlora.results.comparison import load_comparison
from iwlora.results.comparison.record import Search
from iwlora.training.state.run_folder import RunDir
from simulated_runs import SimulatedExecutor, best_at_1e_3, simulate

MakePlan = Callable[..., Plan]
ARMS = ("full", "lora", "iw-lora")


class DivergingExecutor(SimulatedExecutor):
    """Runs that end with code 2 have diverged: their loss was NaN."""

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        folder = self.running[0]
        ended = super().wait(timeout)
        if ended[0][1] == 2:
            RunDir(folder).set_status("diverged", error="Diverged: the loss is nan in step 3")
        return ended


@pytest.mark.quick
def test_a_run_that_crashes_is_retried_once_and_the_crash_is_recorded(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    def outcome(recipe: Any, attempt: int) -> float | int:
        return -9 if recipe.train.seed == 0 and attempt == 1 else best_at_1e_3(recipe)

    executor = SimulatedExecutor(outcome)
    failed, announced = simulate(make_plan(), tmp_path / "out", executor)
    assert failed == []
    assert len(executor.started) == 4 + 2
    assert "lora, seed 0 failed (exit -9): out of luck; it is tried once more" in announced
    lines = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    crashes = [json.loads(line) for line in lines]
    assert [(c["label"], c["seed"], c["exit"], c["tried_again"]) for c in crashes] == [
        ("lora", 0, -9, True),
        ("iw-lora", 0, -9, True),
    ]


def test_a_second_crash_never_counts_as_a_result(make_plan: MakePlan, tmp_path: Path) -> None:
    def outcome(recipe: Any, _: int) -> float | int:
        return 1 if recipe.label == "lora" else best_at_1e_3(recipe)

    executor = SimulatedExecutor(outcome, jobs=3)
    failed, announced = simulate(make_plan(), tmp_path / "out", executor)
    assert [(run.label, run.seed) for run in failed] == [("lora", 0), ("lora", 1)]
    assert "lora, seed 1 failed (exit 1): out of luck; it is not counted" in announced
    assert not list((tmp_path / "out" / "lora").rglob("result.json"))
    again, _ = simulate(make_plan(), tmp_path / "out", SimulatedExecutor())
    assert again == [], "the next start runs what failed"


def test_an_exit_code_of_zero_without_a_result_is_a_failure(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    failed, _ = simulate(make_plan(), tmp_path / "out", SimulatedExecutor(lambda *_: 0))
    assert len(failed) == 4


@pytest.mark.quick
def test_a_run_that_diverges_is_recorded_and_neither_retried_nor_counted(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    def outcome(recipe: Any, _: int) -> float | int:
        return 2 if recipe.method.name == "iw-lora" else best_at_1e_3(recipe)

    out = tmp_path / "out"
    executor = DivergingExecutor(outcome)
    failed, announced = simulate(make_plan(), out, executor)
    assert [str(run) for run in failed] == ["iw-lora, seed 0", "iw-lora, seed 1"]
    assert len(executor.started) == 4
    assert any("iw-lora, seed 0 diverged" in line for line in announced)
    assert not (out / "failures.jsonl").exists()

    again = DivergingExecutor(outcome)
    failed, _ = simulate(make_plan(), out, again)
    assert again.started == []
    assert len(failed) == 2

    comparison = load_comparison(out)
    assert {run.result.label for run in comparison.runs} == {"lora"}
    missing = [(arm, seed) for arm, seed, _ in comparison.missing]
    assert missing == [("iw-lora", 0), ("iw-lora", 1)]
    assert all("diverged" in why and "nan in step 3" in why for _, _, why in comparison.missing)
    page = write_content(build_content(analyze([comparison]))).read_text(encoding="utf-8")
    assert "state: diverged: Diverged: the loss is nan in step 3" in page
    summary = json.loads((out / "summary.json").read_text())
    arms = {arm["label"]: arm for arm in summary["arms"]}
    assert not any(arms["iw-lora"]["metrics"].values())


def test_a_learning_rate_that_diverges_is_out_of_the_search(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    def outcome(recipe: Any, _: int) -> float | int:
        return 2 if recipe.train.lr == 1e-3 else best_at_1e_3(recipe)  # where it would be best

    executor = DivergingExecutor(outcome)
    plan = make_plan(search={"lr": [1e-5, 1e-4, 1e-3]})
    failed, _ = simulate(plan, tmp_path / "out", executor)
    assert failed == []
    search = Search.load(tmp_path / "out" / "search.json").arms
    for label in ("lora", "iw-lora"):
        states = {trial.lr: trial.state for trial in search[label].trials}
        assert states == {1e-5: "done", 1e-4: "done", 1e-3: "diverged"}
        assert search[label].lr == 1e-4


def test_killed_after_a_trial_that_was_not_planned_the_reported_runs_still_start(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan, out = make_plan(search={"lr": [1e-6, 1e-5, 1e-4], "widen": 1}), tmp_path / "out"
    failed, announced = simulate(plan, out, SimulatedExecutor())
    assert failed == []
    assert any("at the edge of its grid" in line for line in announced)
    reported = sorted(run.folder(out) for run in plan.runs)
    for folder in reported:
        shutil.rmtree(folder)
    executor = SimulatedExecutor()
    failed, _ = simulate(plan, out, executor)
    assert failed == []
    assert sorted(executor.started) == reported


def test_a_comparison_grows_by_seeds_and_arms(make_plan: MakePlan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    simulate(make_plan(), out, SimulatedExecutor())
    more_arms = ["full", {"name": "lora", "rank": 4}, {"name": "iw-lora", "rank": 4}]
    grown = SimulatedExecutor()
    _, announced = simulate(make_plan(methods=more_arms, seeds=[0, 1, 2]), out, grown)
    new = [folder.relative_to(out).as_posix() for folder in grown.started]
    assert new == ["full/seed-0", "full/seed-1", *(f"{arm}/seed-2" for arm in ARMS)]
    assert "4 of 9 runs are done already" in announced
    comparison = load_comparison(out)
    assert comparison.seeds == (0, 1, 2)
    assert len(comparison.runs) == 9


def test_an_interrupt_stops_the_executor(make_plan: MakePlan, tmp_path: Path) -> None:
    def outcome(*_: Any) -> float:
        raise KeyboardInterrupt

    executor = SimulatedExecutor(outcome)
    running = r"0 of 4 runs are done; the run in .*seed-0 has no checkpoint, so a repeated command"
    with pytest.raises(KeyboardInterrupt, match=running):
        simulate(make_plan(), tmp_path / "out", executor)
    assert executor.stopped


def test_a_baseline_is_an_arm_and_may_change(make_plan: MakePlan, tmp_path: Path) -> None:
    for methods in (["lora", "iw-lora"], [{"name": "lora", "label": "plain"}, "iw-lora"]):
        with pytest.raises(IwloraError, match=r"unknown baseline 'iwlora'; did you mean 'iw-lora'"):
            make_plan(methods=methods, baseline="iwlora")
    assert make_plan().baseline is None
    simulate(make_plan(), tmp_path / "out", SimulatedExecutor())
    again = SimulatedExecutor()
    simulate(make_plan(baseline="iw-lora"), tmp_path / "out", again)
    assert again.started == [], "the runs are the same with another baseline"
    assert load_comparison(tmp_path / "out").baseline == "iw-lora"
