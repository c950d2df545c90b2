"""What a report says of a sequential comparison, from simulated runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.report.content import build_content
from iwlora.compare.report.formats.terminal import terminal_text
from iwlora.compare.report.sequential import sequential_sentence
from iwlora.compare.report.write import write_content
from iwlora.compare.statistics.analysis import Analysis, analyze
from iwlora.compare.statistics.sequential import half_width
from iwlora.results.comparison import Comparison, load_comparison
from iwlora.results.comparison.combined import load_parts
from iwlora.training.recipe import Recipe
from simulated_runs import SimulatedExecutor, simulate

MakePlan = Callable[..., Plan]
MEANS = {"lora": 0.8, "clear": 0.85, "equal": 0.8, "wide": 0.8}


def score(recipe: Recipe, _: int) -> float:
    label = recipe.label or ""
    rng = np.random.default_rng([7, recipe.train.seed, len(label), ord(label[0])])
    spread = 0.03 if label == "wide" else 0.004
    return float(MEANS[label] + spread * rng.standard_normal())


@pytest.fixture
def analysis(make_plan: MakePlan, tmp_path: Path) -> Analysis:
    arms = [{"name": "lora", "rank": 4, "label": label} for label in MEANS]
    plan = make_plan(methods=arms, seeds=None, stop={"difference": 1.0, "max_seeds": 12})
    simulate(plan, tmp_path / "out", SimulatedExecutor(score))
    return analyze([load_comparison(tmp_path / "out")])


@pytest.mark.quick
def test_each_arm_has_its_verdict_interval_and_price(analysis: Analysis) -> None:
    content = build_content(analysis)
    rows = {row.arm: row for row in analysis.tasks[0].differences}
    assert {arm: row.outcome for arm, row in rows.items()} == {
        "clear": "higher",
        "equal": "within",
        "wide": "open",
    }
    values = np.array([*rows["clear"].differences.values()])
    half = half_width(values, 0.05 / 3)[-1]
    assert rows["clear"].summary.high == pytest.approx(values.mean() + half)
    real, _, train = content.answers
    assert content.overall is not None
    assert "an interval that holds at all looks and arms together; the" in content.overall.caption
    assert "sign-flip" not in content.overall.caption
    assert real.short == (
        "Yes, in accuracy: clear is better than lora. For equal, it is smaller than 1 point. "
        "For wide, it is not known yet."
    )
    assert train.short.startswith("Train clear")
    text = " ".join(terminal_text(content).split())
    assert "wide and lora: no verdict yet" in text
    assert "All 12 draws are used up; raise stop.max_seeds to go on." in text
    runs = len(analysis.tasks[0].comparison.runs)
    assert f"The {runs} runs took {runs * 10 // 60} min" in text
    assert "With a fixed number of seeds, 80% power at 1 point takes" in text
    assert "at most 5% of such comparisons call a difference that is not there" in content.verdict
    assert " of 12" not in text, "draws that no verdict needs are not missing"


def test_an_arm_that_is_decided_with_zero_in_its_interval_says_why(analysis: Analysis) -> None:
    """Holm's correction decides it, and the interval is Bonferroni's."""
    (row,) = (row for row in analysis.tasks[0].differences if row.arm == "clear")
    assert analysis.rule is not None
    assert sequential_sentence(row, analysis.rule).endswith(f"{row.summary.n} draws.")
    wide = replace(row, summary=replace(row.summary, low=-0.001), p_adjusted=0.032)
    assert sequential_sentence(wide, analysis.rule).endswith(
        f"{row.summary.n} draws. The test decided (p 0.032, corrected by Holm); the interval is "
        "wider, because it holds for all arms and looks at once."
    )


def test_over_several_tasks_the_mean_has_an_interval_that_holds_at_all_looks(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    """From the draws that all tasks share; what was drawn on one task alone does not count."""
    arms = [{"name": "lora", "rank": 4, "label": label} for label in ("lora", "clear", "wide")]
    gains = {"one": 0.0, "two": -0.04}  # to the 5 points of "clear"

    def comparison(name: str) -> Comparison:
        def of_task(recipe: Recipe, attempt: int) -> float:
            return score(recipe, attempt) + gains[name] * (recipe.label == "clear")

        plan = make_plan(methods=arms, seeds=None, stop={"difference": 1.0, "max_seeds": 12})
        simulate(plan, tmp_path / name, SimulatedExecutor(of_task))
        return load_comparison(tmp_path / name)

    analysis = analyze([comparison(name) for name in gains], tmp_path / "both")
    content = build_content(analysis)
    by_arm = {row.arm: row for row in analysis.overall}
    of_tasks = [
        {row.arm: row for row in task.differences}["clear"].differences for task in analysis.tasks
    ]
    shared = min(map(len, of_tasks))
    assert shared < max(map(len, of_tasks))
    path = np.array([np.mean([of[seed] for of in of_tasks]) for seed in range(shared)])
    found = by_arm["clear"].difference
    assert found is not None
    assert found.mean == pytest.approx(path.mean())
    assert found.high == pytest.approx(path.mean() + half_width(path, 0.05 / 2)[-1])
    assert by_arm["wide"].outcome == "open"
    assert content.verdict.startswith("clear is better than lora over 2 tasks: +")
    assert f"{shared} draws that all tasks share" in content.verdict
    assert "wide and lora: no verdict yet over 2 tasks" in content.verdict
    assert "the verdict on the mean over tasks ends none" in content.verdict
    assert content.overall is not None
    assert "from the draws that all tasks share" in content.overall.caption
    assert content.answers[0].short.startswith("Yes, in accuracy: clear is")


def test_arms_of_two_folders_keep_the_test_that_allows_for_looking(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    """The draws of each ended by its rule: a test for fixed seeds would be wrong too often."""
    for name, difference in (("one", 1.0), ("two", 2.0)):
        arms = [{"name": "lora", "rank": 4, "label": arm} for arm in ("lora", f"{name}-equal")]
        stop = {"difference": difference, "max_seeds": 12}
        plan = make_plan(methods=arms, seeds=None, stop=stop)
        simulate(plan, tmp_path / name, SimulatedExecutor(lambda recipe, _: 0.8))
    (merged,) = load_parts([tmp_path / "one", tmp_path / "two"])
    assert merged.stop is not None
    assert (merged.stop.difference, merged.stop.error) == (1.0, 0.05)
    differences = analyze([merged], baseline="lora (one)").tasks[0].differences
    assert all(row.sequential for row in differences)


def test_files_and_figures(analysis: Analysis) -> None:
    content = build_content(analysis)
    page = write_content(content).read_text(encoding="utf-8")
    assert "interval at all looks" in page
    stems = [figure.stem for figure in content.sections[0].figures]
    assert "verdicts" in stems
    assert "differences" not in stems
    folder = analysis.folder
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    outcomes = {row["arm"]: row["sequential"]["outcome"] for row in summary["differences"]}
    assert outcomes == {"clear": "better", "equal": "within", "wide": "open"}
    price = summary["price"]
    assert price["runs"] == len(analysis.tasks[0].comparison.runs)
    seeds = {arm["arm"]: arm["fixed_seeds"] for arm in price["arms"]}
    assert seeds["lora"] == seeds["wide"] == max(seeds.values())
    assert f"{seeds['wide']:,} seeds for wide" in summary["verdict"]
    table = content.sections[0].differences
    assert table is not None
    assert [row[-1] for row in table.rows] == [f"{seeds[row[0]]:,}" for row in table.rows]
    hours = {arm["arm"]: f"{arm['core_hours']:,.2f}" for arm in price["arms"]}
    column = table.head.index("core-hours")
    assert [row[column] for row in table.rows] == [hours[row[0]] for row in table.rows]
    assert f"({price['fixed_core_hours']:,.2f} core-hours), " in summary["verdict"]
    overall = {row["arm"]: row["p_value"] for row in summary["overall"]}
    assert overall["clear"] < 0.05 < overall["wide"], "from the sequential test too"
