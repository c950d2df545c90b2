"""The runs of a comparison: its arms times its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.recipe import load_plan
from iwlora.inputs.yaml_json import to_yaml

pytestmark = pytest.mark.quick


def plan_of(tmp_path: Path, **settings: Any) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(to_yaml({"model": "m", "task": "glue/rte", **settings}), encoding="utf-8")
    return path


def test_a_plan_is_methods_times_seeds(tmp_path: Path) -> None:
    arms = ["full", {"name": "lora", "rank": 2, "label": "small", "train": {"lr": 0.1}}]
    path = plan_of(tmp_path, methods=arms, seeds=[3, 1, 3], train={"lr": 0.5, "epochs": 2})
    plan = load_plan(str(path), ["train.epochs=7"])
    assert (plan.labels, plan.seeds) == (["full", "small"], [3, 1])
    assert [(run.label, run.seed) for run in plan.runs] == [
        ("full", 3),
        ("small", 3),
        ("full", 1),
        ("small", 1),
    ]
    small = plan.runs[1].recipe
    assert (small.method.size, small.train.lr, small.train.seed) == (2, 0.1, 3)
    assert (plan.runs[0].recipe.train.lr, plan.runs[0].recipe.train.epochs) == (0.5, 7)
    assert plan.runs[1].folder(tmp_path) == tmp_path / "small" / "seed-3"


def test_a_budget_is_for_the_arms_that_have_a_size(tmp_path: Path) -> None:
    path = plan_of(tmp_path, methods=["full", "lora"], budget="0.5%")
    full, lora = (run.recipe for run in load_plan(str(path)).runs)
    assert (full.budget, lora.budget) == (None, "0.5%")
