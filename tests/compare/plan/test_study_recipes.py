"""The recipes of studies and papers plan exactly the runs that their published numbers come from.

``study_settings.json`` holds the settings of every planned run as version 0.1.0 completed them
from the recipes. A default that changes later must not change these runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.recipe import load_plan

pytestmark = pytest.mark.quick

RECIPES = Path(__file__).parents[3] / "recipes"
STORED = json.loads(Path(__file__).with_name("study_settings.json").read_text(encoding="utf-8"))


def stored_run(name: str, label: str, seed: int, lr: float) -> dict[str, Any]:
    """The settings of a run of version 0.1.0."""
    shared, arm = STORED[name]["shared"], STORED[name]["arms"][label]
    train = {**shared["train"], "lr": lr, "seed": seed}
    return {
        **shared,
        "label": label,
        "method": arm["method"],
        "budget": arm["budget"],
        "train": train,
    }


def stored_plan(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(reported runs, trials) of version 0.1.0, in their order."""
    stored = STORED[name]
    runs = [
        stored_run(name, label, seed, arm["lr"])
        for seed in stored["seeds"]
        for label, arm in stored["arms"].items()
    ]
    trials = []
    for label, trials_of_arm in stored["trials"].items():
        for lr, seed, holdout in trials_of_arm:
            trial = stored_run(name, label, seed, lr)
            trials.append({**trial, "task": {**trial["task"], "holdout": holdout}})
    return runs, trials


def known_part(settings: Any, stored: Any) -> Any:
    """The settings without fields that version 0.1.0 did not have."""
    if not isinstance(settings, dict) or not isinstance(stored, dict):
        return settings
    return {key: known_part(settings[key], stored[key]) for key in settings if key in stored}


def differing(planned: tuple[PlannedRun, ...], stored: list[dict[str, Any]]) -> list[str]:
    """The planned runs whose settings are not the stored ones."""
    assert len(planned) == len(stored)
    return [
        str(run)
        for run, settings in zip(planned, stored, strict=True)
        if known_part(run.recipe.settings(), settings) != settings
    ]


def load(name: str, *overrides: str) -> Plan:
    return load_plan(str(RECIPES / name), overrides)


def test_every_study_and_paper_is_stored() -> None:
    files = [*(RECIPES / "compare").glob("*.yaml"), *(RECIPES / "paper").glob("*.yaml")]
    names = {f"{file.parent.name}/{file.name}" for file in files}
    newer = {"quickstart", "entailment", "study", "images"}
    assert names - {f"compare/{name}.yaml" for name in newer} == set(STORED)


@pytest.mark.parametrize("name", STORED)
def test_all_planned_runs_have_the_settings_of_version_0_1_0(name: str) -> None:
    plan = load(name)
    runs, trials = stored_plan(name)
    assert (plan.seeds, plan.baseline) == (STORED[name]["seeds"], STORED[name]["baseline"])
    assert differing(plan.runs, runs) == []
    assert differing(plan.trials, trials) == []


@pytest.mark.parametrize("override", ["train.warmup=0.1", "targets=[query]", "task.max_train=9"])
def test_a_changed_setting_is_noticed(override: str) -> None:
    name = "compare/study-rte.yaml"
    plan = load(name, override)
    runs, trials = stored_plan(name)
    assert len(differing(plan.runs, runs)) == len(runs)
    assert len(differing(plan.trials, trials)) == len(trials)


def test_the_study_ends_with_verdicts_and_has_the_arms_of_the_published_one() -> None:
    plan, published = load("compare/study.yaml"), load("compare/study-entailment.yaml")
    assert plan.stop
    assert (plan.stop.difference, plan.stop.max_seeds) == (1.0, 40)
    assert plan.search
    assert plan.search.rule == "loss-curve"
    assert plan.labels == published.labels
    arms = zip(plan.first_runs, published.first_runs, strict=True)
    assert all(new.recipe.method == old.recipe.method for new, old in arms)
