"""Comparing your own runs: two or more recipes of runs as the arms of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import run_settings, write_recipe
from iwlora.compare.plan.run_recipes import plan_run_recipes
from iwlora.errors import IwloraError

pytestmark = pytest.mark.quick


@pytest.fixture
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    return run_settings(tiny_bert, reviews)


def test_each_recipe_is_an_arm_with_the_same_seeds(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    slow = write_recipe(tmp_path / "slow.yaml", settings)
    other = {**settings, "label": "targeted", "targets": ["query"]}
    targeted = write_recipe(tmp_path / "b.yaml", other)
    paths = [str(slow), str(targeted)]
    plan = plan_run_recipes(paths)
    assert plan.labels == ["slow", "targeted"], "the file's name, or the label"
    assert plan.seeds == [0, 1, 2, 3, 4, 5]
    assert [run.recipe.train.seed for run in plan.runs] == [seed for seed in range(6) for _ in "ab"]
    assert [run.recipe.targets for run in plan.runs[:2]] == ["all", ["query"]]

    changes = ["seeds=[7]", "baseline=targeted", "train.lr=0.5"]
    changed = plan_run_recipes(paths, changes)
    assert (changed.seeds, changed.baseline) == ([7], "targeted")
    assert {run.recipe.train.lr for run in changed.runs} == {0.5}


def test_recipes_of_runs_take_a_rule_in_the_place_of_seeds(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    paths = [str(write_recipe(tmp_path / f"{name}.yaml", settings)) for name in "ab"]
    plan = plan_run_recipes(paths, ["stop.difference=0.5", "stop.max_seeds=9"])
    assert plan.stop is not None
    assert (plan.stop.difference, plan.stop.error, plan.seeds) == (0.5, 0.05, [*range(9)])
    assert plan.certain_seeds == [*range(5)]
    with pytest.raises(IwloraError, match="seeds and stop exclude each other"):
        plan_run_recipes(paths, ["stop.difference=0.5", "seeds=[0]"])


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        ({"task": {"name": "builtin/entailment"}}, [], "its task differs from that of the others"),
        ({"label": "first"}, [], "two recipes are named first; give each a label"),
        ({"methods": ["lora"]}, [], "is a comparison's recipe"),
        ({"train": {"lr": -1}}, [], "train.lr"),
        ({}, ["seeds=0"], "seeds=0: accepted is a list of whole numbers"),
        ({}, ["seeds=[0,-1]"], "seeds: -1 is no seed: accepted are whole numbers from 0 to 429"),
        ({}, ["seeds=[4294967296]"], "seeds: 4294967296 is no seed"),
        ({}, ["baseline=third"], "unknown baseline 'third'"),
    ],
)
def test_recipes_that_do_not_compare_are_refused(
    settings: dict[str, Any],
    tmp_path: Path,
    change: dict[str, Any],
    overrides: list[str],
    message: str,
) -> None:
    first = write_recipe(tmp_path / "first.yaml", settings)
    second = write_recipe(tmp_path / "second.yaml", {**settings, **change})
    with pytest.raises(IwloraError, match=message):
        plan_run_recipes([str(first), str(second)], overrides)
