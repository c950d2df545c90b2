"""``measure: in-flight`` in a run: the importance comes from the training's own first steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.errors import IwloraError
from iwlora.penalty import diagnostics_log
from iwlora.results.sensitivity import Sensitivity
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.callbacks import MetricsLog
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from runs import recipe, weights, with_options

FREE = {"measure": "in-flight", "estimator": "lora", "tolerance": 0.0}
READ = {**FREE, "estimator": "exact"}


def in_flight(model: Path, task: dict[str, str], **options: Any) -> Recipe:
    """Four epochs of six steps."""
    wanted = recipe(model, task, "iw-lora", epochs=4, save_steps=3)
    return with_options(wanted, **{"alpha": 0.3, "max_batches": 10, **options})


class Killed(BaseException):
    """What ends a process from outside."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killing(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Killed

    monkeypatch.setattr(prepare_module, "MetricsLog", Killing)


@pytest.mark.parametrize("how", [FREE, READ], ids=["lora", "exact"])
def test_a_run_killed_while_it_measures_ends_as_an_uninterrupted_one(
    how: dict[str, Any],
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten batches are read: it is half done at 5 and 8, and done at 14."""
    wanted = in_flight(tiny_bert, reviews, **how)
    whole = train(wanted, tmp_path / "whole")
    for step in (5, 8, 14):
        kill_at(step, monkeypatch)
        with pytest.raises(Killed):
            train(wanted, tmp_path / "pieces")
        monkeypatch.undo()
    pieces = train(wanted, tmp_path / "pieces")
    assert pieces["metrics"] == whole["metrics"]
    expected, computed = weights(tmp_path / "whole"), weights(tmp_path / "pieces")
    assert all(torch.equal(computed[name], expected[name]) for name in expected)
    stored = [Sensitivity.load(tmp_path / run / "sensitivity.json") for run in ("whole", "pieces")]
    assert stored[0].batches == 10
    assert replace(stored[0], seconds=0.0) == replace(stored[1], seconds=0.0)
    logs = [tmp_path / run / "checkpoints" / "penalty.jsonl" for run in ("whole", "pieces")]
    assert logs[0].read_text() == logs[1].read_text()


def test_the_penalty_begins_when_the_measurement_is_done(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    plain = recipe(tiny_bert, reviews, "lora", epochs=4)
    train(plain, tmp_path / "lora")
    result = train(in_flight(tiny_bert, reviews, **FREE), tmp_path / "late")
    assert result["measure_seconds"] == 0
    ended = [weights(tmp_path / run) for run in ("lora", "late")]
    assert any(not torch.equal(ended[0][name], ended[1][name]) for name in ended[0])
    unfinished = {**FREE, "max_batches": 99, "route": "loss"}
    never = train(in_flight(tiny_bert, reviews, **unfinished), tmp_path / "never")
    assert "the penalty never started: 24 steps were not enough" in never["notes"][-1]
    unpenalised = weights(tmp_path / "never")
    assert all(torch.equal(unpenalised[name], ended[0][name]) for name in unpenalised)
    assert not (tmp_path / "never" / "sensitivity.json").exists()


def test_without_an_estimator_a_short_run_reads_its_first_two_steps(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """A limit of the recipe's is kept."""
    default = with_options(recipe(tiny_bert, reviews, "iw-lora", epochs=4), alpha=0.3)
    assert default.method.calibration() is None
    result = train(default, tmp_path / "run")
    measured = Sensitivity.load(tmp_path / "run" / "sensitivity.json")
    assert (measured.estimator, measured.batches) == ("lora", 2)
    assert measured.share_error is not None
    assert all(site.stderr is not None for site in measured.sites)
    assert not any("never started" in note for note in result["notes"])
    log = (tmp_path / "run" / "checkpoints" / "penalty.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [10, 20]
    one = with_options(recipe(tiny_bert, reviews, "iw-lora", epochs=1), max_batches=1)
    train(one, tmp_path / "one")
    assert Sensitivity.load(tmp_path / "one" / "sensitivity.json").batches == 1


def test_a_strength_that_does_nothing_is_noted_in_the_result(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    wanted = with_options(recipe(tiny_bert, reviews, "iw-lora"), alpha=1e-12)
    note = train(wanted, tmp_path / "run")["notes"][-1]
    assert note.startswith("the penalty had no effect: at each of 1 recorded steps")


def test_what_a_crash_left_in_the_log_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "penalty.jsonl"
    lines = [
        json.dumps({"step": step, "sites": {"w": {"norm": 1.0, "ratio": None}}}) for step in (2, 4)
    ]
    path.write_text("\n".join(lines) + '\n{"step": 6, "si', encoding="utf-8")
    assert diagnostics_log.truncate(path, step=3) == [{"w": float("inf")}]
    assert path.read_text(encoding="utf-8") == lines[0] + "\n"
    assert diagnostics_log.truncate(tmp_path / "absent.jsonl", step=3) == []


def test_the_free_sketch_reads_training_steps_alone(
    tiny_bert: Path, reviews: dict[str, str]
) -> None:
    with pytest.raises(IwloraError, match="so it needs measure=in-flight"):
        in_flight(tiny_bert, reviews, measure="before", estimator="lora")
