"""Checks before the first run: equal budgets, and ranks that a budget sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import MarianConfig, MarianMTModel

from counted import low_rank_parameters
from iwlora.compare.execute.packed.planner import runs_that_fit
from iwlora.compare.execute.scheduling.scheduler import Scheduler
from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.preflight import check_budgets, check_task
from iwlora.errors import IwloraError
from iwlora.results.events import ignore
from simulated_runs import SimulatedExecutor
from tiny_tasks import write_task

pytestmark = pytest.mark.quick

MakePlan = Callable[..., Plan]


def test_unequal_budgets_are_refused_unless_they_are_wanted(make_plan: MakePlan) -> None:
    methods = ["full", {"name": "lora", "rank": 2}, {"name": "iw-lora", "rank": 4}]
    with pytest.raises(IwloraError, match=r"lora 832, iw-lora 1,664; .*unequal_budgets=true"):
        check_budgets(make_plan(methods=methods))
    allowed = check_budgets(make_plan(methods=methods, unequal_budgets=True))
    assert allowed == {"lora": low_rank_parameters(2), "iw-lora": low_rank_parameters(4)}
    assert allowed == {"lora": 832, "iw-lora": 1664}


def test_a_budget_sets_the_ranks(make_plan: MakePlan) -> None:
    plan = make_plan(methods=["full", "lora"], budget=1300)
    assert check_budgets(plan) == {"lora": low_rank_parameters(3)}
    assert low_rank_parameters(3) <= 1300 < low_rank_parameters(4)
    full = next(run for run in plan.runs if run.label == "full")
    assert full.recipe.budget is None, "it has no size to set"


def test_a_length_that_leaves_no_room_for_the_text_is_refused(make_plan: MakePlan) -> None:
    check_task(make_plan())
    with pytest.raises(IwloraError, match="max_length"):
        check_task(make_plan(train={"max_length": 2}))


def test_more_steps_to_average_than_there_are_are_refused(make_plan: MakePlan) -> None:
    """96 rows in batches of 32."""
    check_task(make_plan(train={"epochs": 1, "max_length": 32, "average_last": 3}))
    with pytest.raises(IwloraError, match="average_last=4 was given, and the training has 3 optim"):
        check_task(make_plan(train={"epochs": 1, "max_length": 32, "average_last": 4}))


def test_a_model_that_only_writes_texts_can_be_compared(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    """The checks before the runs count on a model with the head of the task's kind."""
    config = MarianConfig(
        vocab_size=64,
        d_model=16,
        pad_token_id=0,
        max_position_embeddings=64,
        **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 24 for part in ("encoder", "decoder")},
    )
    MarianMTModel(config).save_pretrained(tmp_path / "marian")
    task, _ = write_task(tmp_path / "task", "seq2seq")
    plan = make_plan(model=str(tmp_path / "marian"), task=task)
    assert set(check_budgets(plan)) == {"lora", "iw-lora"}
    assert runs_that_fit(plan.runs[0].recipe, 10**9) > 1
    Scheduler(plan, tmp_path, SimulatedExecutor(), ignore)
