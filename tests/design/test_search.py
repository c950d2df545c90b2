"""Whole searches with planted scores: what is found, what stays open, restarts and growth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from commands import write_recipe
from iwlora.compare.plan.planned_runs import PlannedRun
from iwlora.compare.plan.run_recipes import plan_run_recipes
from iwlora.design.recipe import design_from
from iwlora.design.report.page import write_page
from iwlora.design.report.text import summary_text
from iwlora.design.search import run_design
from iwlora.errors import IwloraError
from iwlora.results.comparison.designs import DesignRecord, DesignSummary, StageSummary
from iwlora.training.recipe import load
from planted_designs import Killed, PlantedRuns, planted

Settings = Callable[..., dict[str, Any]]


def search(
    settings: Mapping[str, Any], out: Path, bonus: Mapping[str, float], noise: float = 0.002
) -> tuple[DesignSummary, PlantedRuns]:
    runs = PlantedRuns(planted(bonus, noise))
    return run_design(design_from(settings), out, runs, lambda _: None), runs


def stage(summary: DesignSummary, name: str) -> StageSummary:
    return next(each for each in summary.stages if each.name == name)


def test_a_planted_best_is_found_and_equal_choices_stay_open(
    settings: Settings, tmp_path: Path
) -> None:
    summary, runs = search(settings(), tmp_path / "out", {"spindle": 0.02})
    grouping, allocation = summary.stages
    assert (grouping.verdict, grouping.value) == ("found", "spindle")
    states = {choice.label: choice.state for choice in grouping.choices}
    assert states.pop("spindle") == "kept"
    assert {*states.values()} == {"dropped"}
    assert allocation.verdict == "open"
    assert {choice.state for choice in allocation.choices} == {"kept", "open"}
    assert "Open: allocation. What was taken there may be no better" in summary_text(summary)
    assert "Scores are accuracy on held-out training rows; higher" in summary_text(summary)
    assert len(runs.started) == summary.runs <= 5 * 16 + 3 * 16
    for run in allocation.runs:
        assert run.point["groups"] == "spindle"
    found = load(str(tmp_path / "out" / "found.yaml"))
    assert found.method.groups == "spindle"  # type: ignore[attr-defined]
    assert (found.task.holdout, found.train.lr) == (None, 1e-2)
    assert summary.found is not None
    assert summary.found["allocation"] == allocation.value
    assert DesignSummary.load(tmp_path / "out" / "summary.json") == summary
    record = DesignRecord.load(tmp_path / "out" / "design.yaml")
    assert record.growing.draws == [8, 16]
    lora = write_recipe(tmp_path / "lora.yaml", {**found.settings(), "method": "lora"})
    together = plan_run_recipes([str(tmp_path / "out" / "found.yaml"), str(lora)])
    assert together.labels == ["found", "lora"]
    for name, version in (("summary.json", "decisions/1"), ("design.yaml", "design/1")):
        assert f"iwlora-{version}" in (tmp_path / "out" / name).read_text(encoding="utf-8")


def test_all_choices_of_a_draw_share_everything_else(settings: Settings, tmp_path: Path) -> None:
    given = settings(order=["grouping", "allocation", "tuned"], draws=[8])
    summary, _ = search(given, tmp_path, {})
    for field, name in (("groups", "grouping"), ("allocation", "allocation"), ("tuned", "tuned")):
        drawn = stage(summary, name).runs
        for draw in range(8):
            of_draw = [run for run in drawn if run.draw == draw]
            others = [{**run.point, field: None} for run in of_draw]
            assert all(other == others[0] for other in others)
            assert len({run.seed for run in of_draw}) == 1
            assert len({str(run.point[field]) for run in of_draw}) == len(of_draw)
    seeds = [{run.seed for run in each.runs} for each in summary.stages]
    assert len(set.union(*seeds)) == sum(map(len, seeds)), "each stage has fresh seeds"
    tuned = {str(run.point["tuned"]) for run in stage(summary, "grouping").runs}
    assert len(tuned) > 1, "what is not yet decided is drawn at random"


def test_a_choice_that_no_design_can_have_is_left_out_of_the_first_stage(
    settings: Settings, tmp_path: Path
) -> None:
    given = settings(order=["tuned"], draws=[8], choices={"tuned": ["all", [1], [2, 3]]})
    given |= {"budget": 20_000, "method": {"strategies": [["lora"]] * 4}}
    summary, runs = search(given, tmp_path, {})
    (tuned,) = summary.stages
    assert "1" in tuned.impossible
    assert tuned.impossible["1"].count("nearest division of it has 9,984") == 1
    assert [choice.label for choice in tuned.choices] == ["all", "2-3"]
    assert len(runs.started) == 2 * 8
    with pytest.raises(IwloraError, match=r"^tuned: none of 200 random designs fits"):
        design_from({**given, "budget": 60_000})


def test_killed_and_continued_it_gives_the_same_summary(settings: Settings, tmp_path: Path) -> None:
    bonus = {"spindle": 0.02, "increasing": 0.01}
    whole, _ = search(settings(), tmp_path / "whole", bonus)
    started = 0
    for most in (5, 60, None):
        runs = PlantedRuns(planted(bonus), most)
        try:
            summary = run_design(design_from(settings()), tmp_path / "cut", runs, lambda _: None)
        except Killed:
            continue
        finally:
            started += len(runs.started)
    assert summary == whole
    assert started == whole.runs, "no run is repeated"


def test_a_finished_search_goes_on_with_more_draws_and_refuses_another_space(
    settings: Settings, tmp_path: Path
) -> None:
    few, _ = search(settings(draws=[8]), tmp_path, {"spindle": 0.003})
    more, runs = search(settings(draws=[8, 16, 32]), tmp_path, {"spindle": 0.003})
    kept = {run.folder: run.score for run in few.stages[0].runs}
    assert kept.items() <= {run.folder: run.score for run in more.stages[0].runs}.items()
    assert stage(more, "grouping").value == "spindle"
    assert all(Path(run.folder).name != "seed-3000" for run in few.stages[1].runs)
    assert runs.started
    with pytest.raises(IwloraError, match=r"another space: design\.seed differ"):
        search(settings(draws=[8, 16, 32], seed=1), tmp_path, {})
    given = settings(draws=[8, 16, 32], choices={"allocation": ["uniform", "increasing"]})
    with pytest.raises(IwloraError, match=r"choices.allocation.*differ"):
        search(given, tmp_path, {})
    with pytest.raises(IwloraError, match=r"draws=\[8, 64\].*may only be added"):
        search(settings(draws=[8, 64]), tmp_path, {})
    stored = DesignRecord.load(tmp_path / "design.yaml").stored()
    for damage, problem in (
        ({"growing": {}}, "growing.draws"),
        ({"space": {**stored["space"], "run": {"model": "m"}}}, "space.run: method=None"),
    ):
        (tmp_path / "damaged").mkdir(exist_ok=True)
        write_recipe(tmp_path / "damaged" / "design.yaml", {**stored, **damage})
        with pytest.raises(IwloraError, match=problem):
            search(settings(draws=[8]), tmp_path / "damaged", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(IwloraError, match=r"holds notes\.txt"):
        search(settings(), tmp_path / "other", {})


def test_paper_takes_the_best_mean_of_independent_designs(
    settings: Settings, tmp_path: Path
) -> None:
    given = settings(order=["grouping"], search="paper", models=12)
    summary, _ = search(given, tmp_path, {"bottleneck": 0.3})
    (only,) = summary.stages
    assert (only.verdict, only.value, len(only.runs)) == ("best mean", "bottleneck", 60)
    assert all(choice.state == "dropped" for choice in only.choices if choice.label != "bottleneck")
    points = [
        [run.point["allocation"] for run in only.runs if run.choice == choice]
        for choice in ("spindle", "bottleneck")
    ]
    assert points[0] == points[1] == ["uniform"] * 12, "what is not searched is fixed"


def test_a_learning_rate_is_searched_once_for_all_designs(
    settings: Settings, tmp_path: Path
) -> None:
    summary, runs = search(settings(lr=[1e-3, 1e-2, 1e-1], draws=[8]), tmp_path, {})
    first, *others = summary.stages
    assert (first.component, first.value) == ("lr", summary.lr)
    plans = [plan for name, plan in runs.plans.items() if not name.startswith("lr-")]
    assert len(plans) == len(others) == 2
    assert {run.recipe.train.lr for plan in plans for run in plan.runs} == {summary.lr}


def test_the_grid_of_learning_rates_is_widened_where_the_best_is_at_its_end(
    settings: Settings, tmp_path: Path
) -> None:
    """The best is planted at 0.1; a search that was killed in an added learning rate goes on."""

    def score(run: PlannedRun) -> float:
        return planted({})(run) - 0.03 * math.log10(run.recipe.train.lr / 0.1) ** 2

    given = design_from(settings(lr=[1e-4, 1e-3, 1e-2], draws=[8]))
    assert given.runs_of(given.stages[0]) == (24, 40)
    with pytest.raises(Killed):
        run_design(given, tmp_path, PlantedRuns(score, most=35), lambda _: None)
    summary = run_design(given, tmp_path, PlantedRuns(score), lambda _: None)
    rates = summary.stages[0]
    assert [choice.value for choice in rates.choices] == [1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert (len(rates.runs), summary.lr, rates.value) == (40, 0.1, 0.1)
    assert "widen" not in rates.found
    for draw in range(8):
        points = [run.point for run in rates.runs if run.draw == draw]
        assert points == [points[0]] * 5, "on the same design"


def test_a_screen_finds_planted_effects(settings: Settings, tmp_path: Path) -> None:
    given = settings(order=["assignment"], search="screen", designs=80)
    del given["method"]

    def score(run: Any) -> float:
        sets = run.recipe.method.strategies
        return planted({})(run) + 0.1 * ("lora" in sets[0]) - 0.1 * ("lora" in sets[3])

    runs = PlantedRuns(score)
    summary = run_design(design_from(given), tmp_path, runs, lambda _: None)
    (only,) = summary.stages
    effects = {(each.group, each.strategy): each for each in only.effects}
    assert len(effects) == 16
    for group, sign in ((1, 1), (4, -1)):
        effect = effects[group, "lora"]
        assert effect.mean == pytest.approx(sign * 10, abs=4)
        assert effect.p_value is not None
        assert effect.p_value < 0.01
    assert "lora" in only.value[0]
    assert "lora" not in only.value[3]


def test_a_group_that_is_not_tuned_has_no_stage_of_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    """All its choices are one design; a race of them decides nothing and costs all its draws."""
    sets = [["lora"], ["pfeiffer", "lora"]]
    choices = {"tuned": ["all", [1, 2]], "assignment": sets}
    given = settings(order=["tuned", "assignment"], draws=[8], choices=choices)
    del given["method"]
    summary, runs = search(given, tmp_path, {"1-2": 0.05})
    assert stage(summary, "tuned").value == [1, 2]
    assert [len(each.runs) for each in summary.stages] == [16, 16, 16, 0, 0]
    assert len(runs.started) == 48
    third = stage(summary, "assignment-3")
    assert (third.choices, third.verdict) == ([], "found")
    shown = summary_text(summary)
    assert "assignment-3: group 3 is not tuned, so it has no strategies to choose\n" in shown
    page = write_page(summary, tmp_path / "page").read_text(encoding="utf-8")
    assert page.count("is not tuned, so it has no strategies to choose.") == 2
    assert " {} {}, learning rate" in shown
    again, repeated = search(given, tmp_path, {"1-2": 0.05})
    assert (again, repeated.started) == (summary, [])


def test_the_assignment_is_raced_group_by_group(settings: Settings, tmp_path: Path) -> None:
    sets = [["lora"], ["pfeiffer", "lora"]]
    given = settings(order=["assignment"], draws=[8], choices={"assignment": sets})
    del given["method"]
    summary, _ = search(given, tmp_path, {})
    assert [each.name for each in summary.stages] == [f"assignment-{n}" for n in range(1, 5)]
    decided = [each.value for each in summary.stages]
    assert summary.found is not None
    assert summary.found["strategies"] == decided
    for run in summary.stages[3].runs:
        assert run.point["strategies"][:3] == decided[:3]


def test_what_is_not_searched_is_for_as_many_groups_as_the_search_has(
    settings: Settings, tmp_path: Path
) -> None:
    sets = [["lora"], ["pfeiffer", "lora"]]
    given = settings(order=["assignment"], draws=[8], groups=2, choices={"assignment": sets})
    given["method"] = {"groups": [4, 8], "allocation": [1, 3]}
    summary, _ = search(given, tmp_path, {})
    for run in summary.stages[0].runs:
        assert (run.point["groups"], run.point["allocation"]) == ([4, 8], [1.0, 3.0])
    again, runs = search(given, tmp_path, {})
    assert again == summary
    assert not runs.started
    with pytest.raises(IwloraError, match=r"run\.method\.allocation differ"):
        search({**given, "method": {"groups": [4, 8], "allocation": [1, 2]}}, tmp_path, {})


def test_a_confirmation_that_could_not_begin_stops_the_search_before_its_first_run(
    settings: Settings, tmp_path: Path
) -> None:
    confirm = {"methods": ["lora"], "search": {"lr": [1e-3, 1e-2, 1e-1], "max_steps": 2}}
    runs = PlantedRuns(planted({}))
    design = design_from({**settings(), "confirm": confirm})
    with pytest.raises(IwloraError, match=r"^confirm: search\.max_steps=2"):
        run_design(design, tmp_path, runs, lambda _: None)
    assert not runs.started
    other = {**settings(seed=1), "confirm": None}
    assert search(other, tmp_path, {})[0].found, "the folder belongs to no search yet"
