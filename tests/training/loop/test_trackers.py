"""What a run logs reaches the trackers that it names, and a missing one is told at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from commands import call, check_plain, run_settings, write_recipe
from iwlora.errors import IwloraError
from iwlora.training.loop.trackers import check_trackers


def test_tensorboard_gets_the_losses(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, reviews))
    out = tmp_path / "run"
    given = ["train.report_to=[tensorboard]", "train.epochs=3"]
    outcome = call(capsys, "train", recipe, *given, "--out", out)
    assert outcome.code == 0, outcome.err
    (events,) = out.rglob("events.out.tfevents*")
    found: Any = EventAccumulator(str(events.parent)).Reload()
    assert {"train/loss", "train/learning_rate"} <= set(found.Tags()["scalars"])


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "iwlora.training.loop.trackers.importlib.util.find_spec",
        lambda given: None if given == name else found(given),
    )
    with pytest.raises(IwloraError, match=f"{name} is not installed; pip install {name}"):
        check_trackers([name])
    check_trackers([])


def test_an_unknown_tracker_is_refused_with_those_that_are_known(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, reviews))
    outcome = call(capsys, "train", recipe, "train.report_to=[paper]", "--out", tmp_path / "run")
    assert outcome.code == 2
    check_plain(outcome)
    assert "tensorboard" in outcome.err
