"""Carrying out a comparison: fairness, what is tried again, what is counted, what goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from iwlora.compare.execute.comparison_folder import lock_folder
from iwlora.compare.execute.local import LocalExecutor
from iwlora.compare.execute.machine import Slot, divide
from iwlora.compare.plan.arms import SHARED_SETTINGS, SHARED_TRAIN_SETTINGS, add_controls
from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.recipe import load_plan
from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.results.loading import load_comparison
from iwlora.training.recipe import TrainSettings
from simulated_runs import SimulatedExecutor, best_at_1e_3, simulate

Load = Callable[..., Plan]


@pytest.fixture
def plan_of(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> Load:
    def load(**changes: Any) -> Plan:
        settings = {
            "model": str(tiny_bert),
            "task": reviews,
            "methods": [{"name": "lora", "rank": 4}, {"name": "iw-lora", "rank": 4}],
            "seeds": [0, 1],
            "train": {"epochs": 1, "max_length": 32},
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return load_plan(str(path))

    return load


VALUES = {
    "precision": "bf16",
    "fast_kernels": False,
    "shard": True,
    "warmup": 0.1,
    "report_to": [],
    "group_by_length": False,
    "deterministic": True,
}


@pytest.mark.parametrize("field", sorted(set(TrainSettings.model_fields) - {"lr"}))
def test_a_setting_of_training_for_one_arm_is_refused_with_the_reason(
    plan_of: Load, field: str
) -> None:
    entry = {"name": "lora", "train": {field: VALUES.get(field, 1)}}
    with pytest.raises(IwloraError) as refused:
        plan_of(methods=[entry, "iw-lora"])
    assert f"methods: lora: train.{field}=" in str(refused.value)
    assert SHARED_TRAIN_SETTINGS[field] in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("field", sorted(SHARED_SETTINGS))
def test_other_data_another_model_or_room_for_one_arm_is_refused(plan_of: Load, field: str) -> None:
    with pytest.raises(
        IwloraError, match=f"methods: small: {field}=.* is unfair: {SHARED_SETTINGS[field]}"
    ):
        plan_of(methods=[{"name": "lora", "label": "small", field: "x"}, "iw-lora"])


def test_a_learning_rate_set_by_hand_is_an_arm_s_own(plan_of: Load) -> None:
    plan = plan_of(methods=[{"name": "lora", "train": {"lr": 0.5}}, "iw-lora"])
    assert [run.recipe.train.lr for run in plan.runs[:2]] == [0.5, 2e-4]


def test_controls_come_with_the_options_of_their_method(monkeypatch: pytest.MonkeyPatch) -> None:
    class Control(IWLora):
        name: ClassVar[str] = "a-control"
        control_of: ClassVar[str | None] = "iw-lora"

    monkeypatch.setattr("iwlora.compare.plan.arms.METHODS", {**METHODS, "a-control": Control})
    mine = {"name": "iw-lora", "rank": 2, "alpha": 0.5, "train": {"lr": 1e-3}}
    added = [arm for arm in add_controls(["lora", mine]) if arm not in ("lora", mine)]
    assert {**mine, "name": "a-control", "label": "a-control"} in added
    assert {arm["label"] for arm in added} == {
        name
        for name, row in {**METHODS, "a-control": Control}.items()
        if row.control_of == "iw-lora"
    }
    named = {**mine, "label": "strong"}
    assert "strong.a-control" in [arm["label"] for arm in add_controls([named])[1:]]
    own = {"name": "a-control", "rank": 7}
    assert [arm for arm in add_controls([mine, own]) if arm.get("name") == "a-control"] == [own]


def test_controls_without_any_are_refused(plan_of: Load) -> None:
    with pytest.raises(IwloraError, match="none of these methods has control arms"):
        plan_of(methods=["full", "lora"], controls=True)


def test_the_baseline_is_an_arm_of_the_user_s_choice(plan_of: Load, tmp_path: Path) -> None:
    for methods in (["lora", "iw-lora"], [{"name": "lora", "label": "plain"}, "iw-lora"]):
        with pytest.raises(IwloraError, match=r"unknown baseline 'iwlora'; did you mean 'iw-lora'"):
            plan_of(methods=methods, baseline="iwlora")
    assert plan_of().baseline is None
    simulate(plan_of(), tmp_path / "out", SimulatedExecutor())
    again = SimulatedExecutor()
    simulate(plan_of(baseline="iw-lora"), tmp_path / "out", again)
    assert again.started == [], "another baseline is no other recipe"
    assert load_comparison(tmp_path / "out").baseline == "iw-lora"


def test_a_crash_is_tried_once_more_and_told(plan_of: Load, tmp_path: Path) -> None:
    def behave(recipe: Any, attempt: int) -> float | int:
        return -9 if recipe.train.seed == 0 and attempt == 1 else best_at_1e_3(recipe)

    executor = SimulatedExecutor(behave)
    failed, told = simulate(plan_of(), tmp_path / "out", executor)
    assert failed == []
    assert len(executor.started) == 4 + 2
    assert "lora, seed 0 failed (exit -9): out of luck; it is tried once more" in told
    lines = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["label"], one["seed"], one["exit"], one["tried_again"]) for one in found] == [
        ("lora", 0, -9, True),
        ("iw-lora", 0, -9, True),
    ]


def test_a_second_crash_is_never_counted_as_a_result(plan_of: Load, tmp_path: Path) -> None:
    def behave(recipe: Any, _: int) -> float | int:
        return 1 if recipe.label == "lora" else best_at_1e_3(recipe)

    executor = SimulatedExecutor(behave, jobs=3)
    failed, told = simulate(plan_of(), tmp_path / "out", executor)
    assert [(run.label, run.seed) for run in failed] == [("lora", 0), ("lora", 1)]
    assert "lora, seed 1 failed (exit 1): out of luck; it is not counted" in told
    assert not list((tmp_path / "out" / "lora").rglob("result.json"))
    again, _ = simulate(plan_of(), tmp_path / "out", SimulatedExecutor())
    assert again == [], "the next start tries what failed"


def test_an_exit_of_zero_without_a_result_is_a_failure(plan_of: Load, tmp_path: Path) -> None:
    failed, _ = simulate(plan_of(), tmp_path / "out", SimulatedExecutor(lambda *_: 0))
    assert len(failed) == 4


def test_an_interrupt_stops_what_runs(plan_of: Load, tmp_path: Path) -> None:
    def behave(*_: Any) -> float:
        raise KeyboardInterrupt

    executor = SimulatedExecutor(behave)
    with pytest.raises(KeyboardInterrupt):
        simulate(plan_of(), tmp_path / "out", executor)
    assert executor.stopped


def test_the_machine_is_shared_out() -> None:
    assert divide(2, [0, 1, 2, 3], []) == [Slot((0, 1), None), Slot((2, 3), None)]
    assert divide(3, [4, 5], ["a", "b"]) == [Slot((4,), "a"), Slot((5,), "b"), Slot((4,), "a")]
    with pytest.raises(IwloraError, match="--jobs 0"):
        LocalExecutor(0)


def test_a_further_run_waits_for_memory_and_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwlora.compare.execute.local.available_gpus", list)
    monkeypatch.setattr("iwlora.compare.execute.local.available_cores", lambda: [0, 0])
    monkeypatch.setattr(LocalExecutor, "_fork", lambda *_: None)  # as where runs cannot be forked
    monkeypatch.setattr(
        "iwlora.compare.execute.local.train_command",
        lambda place: ["sh", "-c", "echo $OMP_NUM_THREADS; taskset -p $$ || true; sleep 30"],
    )
    local = LocalExecutor(2)
    log = tmp_path / "log.txt"
    try:
        assert local.has_capacity(10**18), "the first run begins whatever it needs"
        local.start(tmp_path / "a", log)
        assert not local.has_capacity(10**18)
        assert local.has_capacity(0)
        local.start(tmp_path / "b", log)
        assert not local.has_capacity(0), "no slot is left"
        deadline = time.monotonic() + 20
        while log.read_text().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.read_text().startswith("1\n")
    finally:
        local.stop()
    assert local.wait(0) == []


@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux alone")
def test_runs_are_forked_onto_the_cores_of_their_slots_and_never_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[Any] = []

    class FakeServer:
        def __init__(self, lock: Any) -> None:
            pass

        def fork(self, arguments: list[str], words: Any, cores: Any) -> Any:
            forked.append((arguments[:2], cores))
            return subprocess.Popen(["true"])

        def close(self) -> None:
            forked.append("closed")

    monkeypatch.setattr("iwlora.compare.execute.local.ForkServer", FakeServer)
    monkeypatch.setattr("iwlora.compare.execute.local.available_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("iwlora.compare.execute.local.train_command", lambda place: ["true"])
    place = tmp_path / "a"
    for jobs, gpus in ((1, []), (2, []), (1, ["0"])):
        monkeypatch.setattr("iwlora.compare.execute.local.available_gpus", lambda gpus=gpus: gpus)
        local = LocalExecutor(jobs)
        local.start(place, tmp_path / "log.txt")
        local.stop()
    recipe = ["train", str(place / "recipe.yaml")]
    assert forked == [(recipe, None), "closed", (recipe, (0, 1)), "closed"]


def test_two_comparisons_do_not_write_into_one_folder(tmp_path: Path) -> None:
    told: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with lock_folder(tmp_path, told.append):
            entered.set()

    with lock_folder(tmp_path, told.append):
        other = threading.Thread(target=second)
        other.start()
        assert not entered.wait(0.3)
    other.join(10)
    assert entered.is_set()
    assert "in use by another comparison" in told[0]
