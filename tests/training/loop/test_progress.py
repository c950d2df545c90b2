"""The events of a run."""

from __future__ import annotations

from pathlib import Path
from statistics import mode
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from iwlora import tasks
from iwlora.results.events import Event
from iwlora.training.loop.progress import Floor, ReportEvents
from iwlora.training.run import train
from runs import evaluations, recipe, with_options

pytestmark = pytest.mark.quick


def test_a_run_reports_what_it_logs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    events: list[Event] = []
    task = {**reviews, "selection": 0.25}
    asked = with_options(recipe(tiny_bert, task, "iw-lora", save_steps=5), measure="before")
    train(asked, tmp_path / "run", progress=events.append)
    names = [event.name for event in events]
    first_epoch, second_epoch = ["scored", "checkpoint"], ["step", "scored", "checkpoint"]
    assert names == ["measured", "training", *first_epoch, *second_epoch]
    splits = tasks.load(asked.task, seed=0).splits
    labels = splits["selection"]["label"][:]
    most = labels.count(mode(splits["train"]["label"][:]))
    scored = [event.fields for event in events if event.name == "scored"]
    logged = evaluations(tmp_path / "run")
    for fields, record in zip(scored, logged, strict=True):
        assert fields["metrics"]["accuracy"] == record["accuracy"]
        assert (fields["step"], fields["split"]) == (record["step"], "selection")
        assert fields["floor"] == {"name": "most frequent class", "value": most / len(labels)}
    last = [event for event in events if event.name == "checkpoint"][-1]
    assert last.fields["step"] == 10
    assert Path(last.fields["path"]).is_dir()


def test_the_score_stands_beside_its_floor_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("iwlora.training.loop.progress.time.monotonic", lambda: now)
    events: list[Event] = []
    floor = Floor("most frequent class", 0.5)
    callback = ReportEvents(events.append, "accuracy", "selection", floor)
    args, control = TrainingArguments(str(tmp_path)), TrainerControl()
    state = TrainerState(global_step=20, max_steps=100, epoch=1.0)

    def call(name: str, **more: Any) -> str:
        getattr(callback, name)(args, state, control, **more)
        return events[-1]

    assert call("on_train_begin") == "training: 100 steps, from the checkpoint of step 20"
    now, state.global_step, state.epoch = 120.0, 60, 3.0
    assert call("on_log", logs={"loss": 0.25}) == "step 60 of 100: loss 0.2500; 20.0 s left"
    scores = {"eval_accuracy": 0.75, "eval_loss": 0.5, "eval_runtime": 1.0}
    text = call("on_evaluate", metrics=scores)
    assert text == (
        "epoch 3: accuracy 0.7500 (most frequent class 0.5000) on selection; 20.0 s left"
    )
    assert events[-1].fields["floor"] == {"name": "most frequent class", "value": 0.5}
    assert events[-1].fields["metrics"] == {"accuracy": 0.75, "loss": 0.5}
    state.global_step = 100
    assert call("on_log", logs={"loss": 0.25}).endswith("loss 0.2500"), "nothing is left"
