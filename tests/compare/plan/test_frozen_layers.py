"""Where frozen blocks lose their dropout, they lose it in every arm, or nothing begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.frozen_layers import with_equal_frozen_layers
from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError

pytestmark = pytest.mark.quick

LORA = {"name": "lora", "rank": 2}
UPPER = r".*layer\.1\..*"
MakePlan = Callable[..., Plan]


def planned(make_plan: MakePlan, model: Path | None, setting: Any, **changes: Any) -> set[Any]:
    """The settings of all runs and trials of the plan."""
    train = {"epochs": 1, "max_length": 32, "cache_frozen": setting}
    given = {"targets": UPPER, "methods": [LORA, "head"], "train": train, **changes}
    plan = make_plan(**given, **({"model": str(model)} if model else {}))
    plan = with_equal_frozen_layers(plan)
    return {run.recipe.train.cache_frozen for run in (*plan.runs, *plan.trials)}


def test_all_arms_get_the_number_of_the_lowest(make_plan: MakePlan, with_dropout: Path) -> None:
    search = {"lr": [1e-3, 3e-3, 1e-2]}
    assert planned(make_plan, with_dropout, True, search=search) == {1}
    assert planned(make_plan, with_dropout, True, methods=["head"]) == {2}
    assert planned(make_plan, with_dropout, 1, methods=["head"]) == {1}


def test_nothing_changes_without_dropout_or_if_nothing_is_asked(
    make_plan: MakePlan, with_dropout: Path
) -> None:
    assert planned(make_plan, None, True, methods=[LORA, "full"]) == {True}
    assert planned(make_plan, with_dropout, "auto", methods=[LORA, "full"]) == {"auto"}
    assert planned(make_plan, with_dropout, False) == {False}
    prompts = [{"name": "apt", "label": f"memory-{n}", "memory": n} for n in (2, 4)]
    assert planned(make_plan, with_dropout, True, methods=prompts) == {True}


@pytest.mark.parametrize(
    "method", ["full", "bitfit", "houlsby", "apt", {"name": "prefix", "num_virtual_tokens": 2}]
)
def test_an_arm_that_trains_below_is_named(
    method: Any, make_plan: MakePlan, with_dropout: Path
) -> None:
    name = method if isinstance(method, str) else method["name"]
    with pytest.raises(IwloraError, match=rf"first block in all arms.*: {name} \(in block 0\);"):
        planned(make_plan, with_dropout, True, methods=[LORA, method])


def test_a_number_above_what_an_arm_leaves_is_refused(
    make_plan: MakePlan, with_dropout: Path
) -> None:
    with pytest.raises(IwloraError, match=r"first 2 blocks in all arms.*: lora \(in block 1\);"):
        planned(make_plan, with_dropout, 2)


def test_modules_and_tokens_that_train_count(make_plan: MakePlan, with_dropout: Path) -> None:
    for changes in ({"modules_to_save": ["embeddings"]}, {"trainable_token_indices": [7]}):
        with pytest.raises(IwloraError, match=r"lora \(in block 0\)"):
            planned(make_plan, with_dropout, True, methods=[LORA], **changes)


def test_one_arm_alone_cannot_set_it(make_plan: MakePlan) -> None:
    with pytest.raises(IwloraError, match="the arms would have dropout in other blocks"):
        make_plan(methods=[{**LORA, "train": {"cache_frozen": True}}, "head"])
