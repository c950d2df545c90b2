"""Runs that fail: the files that they leave, and the errors that they report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.callbacks import MetricsLog
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import recipe, status, with_options


class Stopped(RuntimeError):
    """An error in the middle of training."""


def test_an_error_in_the_middle_leaves_no_result(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(MetricsLog):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise Stopped("the disk is full")

    run_recipe, folder = recipe(tiny_bert, reviews, epochs=1), tmp_path / "run"
    monkeypatch.setattr(prepare_module, "MetricsLog", Stopping)
    with pytest.raises(Stopped):
        train(run_recipe, folder)
    assert status(folder) == {"state": "failed", "error": "Stopped: the disk is full"}
    left = {path.name for path in folder.iterdir()}
    assert left == {
        ".lock",
        "recipe.yaml",
        "environment.json",
        "status.json",
        "fingerprint.json",
        "row-digests.json",
        "metrics.jsonl",
        "checkpoints",
    }
    monkeypatch.undo()
    assert train(run_recipe, folder)["resumed_at_step"] == 0
    assert status(folder) == {"state": "done"}


def test_the_result_is_written_last(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(run: RunDir, result: dict[str, Any]) -> None:
        raise Stopped({path.name for path in run.path.iterdir()})

    monkeypatch.setattr(RunDir, "finish", finish)
    with pytest.raises(Stopped) as caught:
        train(recipe(tiny_bert, reviews, "iw-lora", epochs=1), tmp_path / "run")
    assert caught.value.args[0] >= {"adapter", "tokenizer", "predictions", "sensitivity.json"}
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.quick  # with the oldest versions too
def test_a_nan_loss_ends_the_run(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> None:
    run_recipe = recipe(tiny_bert, reviews, lr=1e30, batch_size=4, epochs=1)
    with pytest.raises(IwloraError, match=r"the loss is nan in step 3: training diverged; lower"):
        train(run_recipe, tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "diverged"
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_training_too_short_for_the_method_is_refused(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    run_recipe = recipe(tiny_bert, reviews, "adalora", epochs=1, batch_size=96)
    run_recipe = with_options(run_recipe, t_init=0.6, t_final=0.3)
    with pytest.raises(IwloraError, match="adalora has no step for pruning: of 1 training steps"):
        train(run_recipe, tmp_path / "run")


def test_a_line_that_a_crash_cut_off_does_not_stop_a_resume(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from iwlora.training.loop.callbacks import MetricsLog

    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 3, "loss": 1.0}\n{"step": 9, "loss": 1.0}\n{"step": 1', encoding="utf-8"
    )
    state = TrainerState(global_step=5)
    MetricsLog(path).on_train_begin(TrainingArguments(str(tmp_path)), state, TrainerControl())
    assert path.read_text(encoding="utf-8") == '{"step": 3, "loss": 1.0}\n'
