"""The recipes that ask whether the advice is worth following."""

from __future__ import annotations

from pathlib import Path

import pytest

from advice.test_rules import decision
from iwlora.advice.evidence import read_evidence
from iwlora.compare.plan.recipe import load_plan
from iwlora.methods import METHODS
from study_methods import declared, load

RECIPES = sorted((Path(__file__).parents[2] / "study" / "advice").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_advice_is_compared_as_it_is_given(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in declared():
        monkeypatch.setitem(METHODS, name, load(name))
    plan = load_plan(str(recipe), [])
    assert [*plan.labels] == ["advice", "all", "uniform-rank-1", "query-value", "random-sites"]
    assert (plan.baseline, len(plan.runs)) == ("advice", 40)
    advised = decision(read_evidence(), params="41472").settings
    arm = plan.runs[0].recipe
    assert arm.label == "advice"
    assert (arm.method.name, arm.method.size) == ("lora", advised["method"]["rank"])
    assert arm.targets == "all"
    assert arm.train.lr == advised["train"]["lr"]


def test_there_are_two_tasks() -> None:
    assert len(RECIPES) == 2
