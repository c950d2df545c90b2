"""One arm alone may set only what keeps the comparison fair; control arms share its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from iwlora.compare.plan.arms import SHARED_SETTINGS, SHARED_TRAIN_SETTINGS, add_controls
from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.training.recipe import TrainSettings

pytestmark = pytest.mark.quick

MakePlan = Callable[..., Plan]
VALID_VALUES = {
    "precision": "bf16",
    "fast_kernels": False,
    "cache_images": False,
    "shard": True,
    "optimizer": "adafactor",
    "betas": [0.9, 0.96],
    "scheduler": "cosine",
    "gradient_checkpointing": True,
    "frozen_dtype": "bfloat16",
    "class_weights": "balanced",
    "early_stopping": None,
    "sampler": "balanced",
    "warmup": 0.1,
    "report_to": [],
    "group_by_length": False,
    "deterministic": True,
}


@pytest.mark.parametrize("field", sorted(set(TrainSettings.model_fields) - {"lr"}))
def test_a_train_setting_of_one_arm_is_refused_with_the_reason(
    make_plan: MakePlan, field: str
) -> None:
    entry = {"name": "lora", "train": {field: VALID_VALUES.get(field, 1)}}
    with pytest.raises(IwloraError) as refused:
        make_plan(methods=[entry, "iw-lora"])
    assert f"methods: lora: train.{field}=" in str(refused.value)
    assert SHARED_TRAIN_SETTINGS[field] in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("field", sorted(SHARED_SETTINGS))
def test_other_data_another_model_or_budget_for_one_arm_is_refused(
    make_plan: MakePlan, field: str
) -> None:
    reason = SHARED_SETTINGS[field]
    with pytest.raises(IwloraError, match=f"methods: small: {field}=.* is unfair: {reason}"):
        make_plan(methods=[{"name": "lora", "label": "small", field: "x"}, "iw-lora"])


def test_an_arm_may_have_its_own_learning_rate(make_plan: MakePlan) -> None:
    plan = make_plan(methods=[{"name": "lora", "train": {"lr": 0.5}}, "iw-lora"])
    assert [run.recipe.train.lr for run in plan.runs[:2]] == [0.5, 2e-4]


def test_controls_get_the_options_of_their_method(monkeypatch: pytest.MonkeyPatch) -> None:
    class Control(IWLora):
        name: ClassVar[str] = "a-control"
        control_of: ClassVar[str | None] = "iw-lora"

    monkeypatch.setattr("iwlora.compare.plan.arms.METHODS", {**METHODS, "a-control": Control})
    arm = {"name": "iw-lora", "rank": 2, "alpha": 0.5, "train": {"lr": 1e-3}}
    lora = {"name": "lora"}
    added = [entry for entry in add_controls([lora, arm]) if entry not in (lora, arm)]
    assert {**arm, "name": "a-control", "label": "a-control"} in added
    assert {entry["label"] for entry in added} == {
        name
        for name, row in {**METHODS, "a-control": Control}.items()
        if row.control_of == "iw-lora"
    }
    labeled = {**arm, "label": "strong"}
    assert "strong.a-control" in [entry["label"] for entry in add_controls([labeled])[1:]]
    explicit = {"name": "a-control", "rank": 7}
    controls = [e for e in add_controls([arm, explicit]) if e.get("name") == "a-control"]
    assert controls == [explicit]


def test_controls_of_methods_that_have_none_are_refused(make_plan: MakePlan) -> None:
    with pytest.raises(IwloraError, match="none of these methods has control arms"):
        make_plan(methods=["full", "lora"], controls=True)
