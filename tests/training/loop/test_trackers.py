"""Metrics reach the experiment trackers of a recipe; missing ones are reported at the start."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import rewrite_logs

from commands import call, check_plain, run_settings, write_recipe
from iwlora.errors import IwloraError
from iwlora.results.run import load_run
from iwlora.training.dry_run.run_cost import estimate_run_cost
from iwlora.training.prepare import check_trackers
from iwlora.training.run import train
from runs import recipe


def test_tensorboard_gets_the_losses(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, reviews))
    out = tmp_path / "run"
    overrides = ["train.report_to=[tensorboard]", "train.epochs=3"]
    outcome = call(capsys, "train", file, *overrides, "--out", out)
    assert outcome.code == 0, outcome.err
    (events,) = out.rglob("events.out.tfevents*")
    events_read: Any = EventAccumulator(str(events.parent)).Reload()
    assert {"train/loss", "train/learning_rate"} <= set(events_read.Tags()["scalars"])


def test_tensorboard_gets_panels_of_importance_and_penalty(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, reviews))
    out = tmp_path / "run"
    overrides = ["train.report_to=[tensorboard]", "train.epochs=8", "method.name=iw-lora"]
    assert call(capsys, "train", file, *overrides, "--out", out).code == 0
    (events,) = out.rglob("events.out.tfevents*")
    read: Any = EventAccumulator(str(events.parent)).Reload()
    sensitivity = load_run(out).sensitivity()
    assert sensitivity is not None
    total = sum(sensitivity.values.values())
    for name, value in sensitivity.values.items():
        (share,) = read.Scalars(f"train/importance/{name}")
        assert share.value == pytest.approx(value / total, rel=1e-5), "sent once"
    log = (out / "checkpoints" / "penalty.jsonl").read_text()
    records = [json.loads(line) for line in log.splitlines()]
    assert len(records) > 1
    for name in sensitivity.values:
        for kind in ("norm", "ratio"):
            sent = read.Scalars(f"train/penalty_{kind}/{name}")
            logged = [record["sites"][name][kind] for record in records]
            assert [scalar.value for scalar in sent] == pytest.approx(logged, rel=1e-5)
            assert [scalar.step for scalar in sent] == [record["step"] for record in records]
    text = (out / "metrics.jsonl").read_text()
    assert "penalty_norm" not in text, "it has a file of its own"


class Recorder(TrainerCallback):
    """What a tracker of transformers is given, under the names that it gives it."""

    def __init__(self, received: list[tuple[int, dict[str, float]]]) -> None:
        self.received = received

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.received.append((state.global_step, rewrite_logs(kwargs["logs"])))


def test_every_other_tracker_gets_the_panels_too(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trackers differ in what they do with a record; transformers gives each the same ones."""
    find_spec = importlib.util.find_spec
    trackers: dict[str, list[tuple[int, dict[str, float]]]] = {"wandb": [], "trackio": []}
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: find_spec("json" if name in trackers else name, *rest),
    )
    for name, received in trackers.items():
        callbacks = integration_utils.INTEGRATION_TO_CALLBACK
        monkeypatch.setitem(callbacks, name, Recorder(received))
    asked = recipe(tiny_bert, reviews, "iw-lora", epochs=4, report_to=[*trackers])
    train(asked, tmp_path / "run")
    sensitivity = load_run(tmp_path / "run").sensitivity()
    assert sensitivity is not None
    total = sum(sensitivity.values.values())
    log = (tmp_path / "run" / "checkpoints" / "penalty.jsonl").read_text()
    penalties = {record["step"]: record["sites"] for record in map(json.loads, log.splitlines())}
    assert [*penalties] == [10, 20]
    for received in trackers.values():
        for name, value in sensitivity.values.items():
            panel = f"train/importance/{name}"
            sent = [(step, logs[panel]) for step, logs in received if panel in logs]
            assert sent == [(10, pytest.approx(value / total))], "once, with the first record"
            for kind in ("norm", "ratio"):
                panel = f"train/penalty_{kind}/{name}"
                at = {step: logs[panel] for step, logs in received if panel in logs}
                assert at == {step: sites[name][kind] for step, sites in penalties.items()}


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda package: None if package == name else find_spec(package),
    )
    with pytest.raises(IwloraError, match=f"{name} is not installed; pip install {name}"):
        check_trackers([name])
    check_trackers([])


@pytest.mark.quick
def test_a_run_reports_a_missing_tracker_before_it_loads_a_model(
    reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: None if name == "trackio" else find_spec(name),
    )
    settings = recipe(tmp_path / "no model", reviews, report_to=["trackio"])
    with pytest.raises(IwloraError, match="pip install trackio"):
        train(settings, tmp_path / "run")
    with pytest.raises(IwloraError, match="pip install trackio"):
        estimate_run_cost(settings)


def test_an_unknown_tracker_is_refused_with_those_that_are_known(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, reviews))
    outcome = call(capsys, "train", file, "train.report_to=[paper]", "--out", tmp_path / "run")
    assert outcome.code == 2
    check_plain(outcome)
    assert "tensorboard" in outcome.err
