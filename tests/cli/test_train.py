"""``iwlora train``: overrides, runs that are repeated, and ends other than the usual."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForSequenceClassification, TrainerState

from commands import call, write_recipe
from iwlora import IwloraError
from iwlora.cli import main
from iwlora.compare.report.floor_verdict import floor_verdict
from iwlora.results.run import load_run
from iwlora.training.loop.callbacks import MetricsLog
from warm_processes import start


def replayed(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text())
    return found


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.quick
def test_train(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    outcome = call(capsys, "train", recipe, "--out", out)
    assert outcome.code == 0
    metrics = result(out)["metrics"]
    (note,) = result(out)["notes"]
    task = replayed(out)["task"]["train"]
    assert outcome.out == (
        f"lora on {task}, seed 0: into {out}\n"
        "training: 6 steps\n"
        f"note: {note}\n"
        f"lora, seed 0: accuracy {metrics['accuracy']:.4f}, macro_f1 {metrics['macro_f1']:.4f}, "
        f"loss {metrics['loss']:.4f} (validation)\n"
        f"lora {floor_verdict('accuracy', load_run(out).result.floors)}\n"
    )
    assert "\nlora learned nothing: not above the most frequent class (" in outcome.out


@pytest.mark.quick
def test_events_are_lines_where_no_terminal_is(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["train", recipe, "task.selection=0.5", "--out", out]
    outcome = call(capsys, *given)
    assert outcome.err == ""
    started, training, scored, *result_lines = outcome.out.splitlines()
    assert started == f"lora on {replayed(out)['task']['train']}, seed 0: into {out}"
    assert training == "training: 4 steps"
    assert re.match(r"epoch 1: accuracy 0\.\d{4}.* on selection", scored)
    quiet = call(capsys, *given[:-1], tmp_path / "quiet", "--quiet")
    assert quiet.err == ""
    assert quiet.out.splitlines() == result_lines, "the result is printed as ever"


def test_overrides_may_stand_before_and_after_the_options(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    before = ["train.lr=2e-3", "train.seed=3"]
    after = ["method.rank=2", "label=small", "task.max_train=16"]
    outcome = call(capsys, "train", recipe, *before, "--out", out, *after)
    assert outcome.code == 0, outcome
    assert "\nsmall, seed 3: " in outcome.out
    found = result(out)
    assert (found["learning_rate"], found["seed"], found["rank"]) == (2e-3, 3, 2)
    assert (found["label"], found["train_examples"]) == ("small", 16)
    assert replayed(out)["train"]["lr"] == 2e-3


def test_another_method_drops_the_options_of_the_old_one(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = {"name": "iw-lora", "rank": 2, "alpha": 0.01, "lora_alpha": 4}
    recipe = write_recipe(tmp_path / "recipe.yaml", {**settings, "method": method})
    for name, kept in (
        ("lora", {"rank": 2, "lora_alpha": 4.0}),
        ("full", {}),
    ):
        out = tmp_path / name
        assert call(capsys, "train", recipe, f"method.name={name}", "--out", out).code == 0
        written = replayed(out)["method"]
        assert written.pop("name") == name
        assert kept.items() <= written.items()
        assert "alpha" not in written
        assert result(out)["method"] == name
    # An option that the user names for the new method is not dropped but checked.
    wrong = call(capsys, "train", recipe, "method.name=lora", "method.alpha=1", "--out", out)
    assert wrong.code == 2
    assert "method.alpha: unknown field" in wrong.err


def test_short_forms_take_overrides(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", {**settings, "method": "lora"})
    out = tmp_path / "run"
    assert call(capsys, "train", recipe, "method.rank=2", "--out", out).code == 0
    assert result(out)["rank"] == 2


def test_values_that_begin_like_other_types(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", settings)
    given = ["budget=10%", "label=falsehood"]
    assert call(capsys, "train", recipe, *given, "--out", tmp_path / "run").code == 0
    found = result(tmp_path / "run")
    assert found["label"] == "falsehood"
    model = AutoModelForSequenceClassification.from_pretrained(settings["model"])
    assert found["rank"] == round(0.1 * model.num_parameters() / 416)
    assert found["adapter_parameters"] == 416 * found["rank"]


def test_a_finished_run_is_not_repeated(
    recipe: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("iwlora.training.loop.trainer.FineTuningTrainer.train", None)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    outcome = call(capsys, "train", recipe, "--out", finished)
    assert outcome.code == 0
    assert "\nlora, seed 0: accuracy" in outcome.out
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_the_written_recipe_replays_the_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "train", finished / "recipe.yaml", "--out", tmp_path / "again").code == 0
    assert result(tmp_path / "again")["metrics"] == result(finished)["metrics"]


# --- ends other than the usual ---


def test_an_interrupt(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iwlora.training.loop.trainer.FineTuningTrainer.train", interrupted)
    outcome = call(capsys, "train", recipe, "--out", tmp_path / "run")
    assert outcome.code == 130
    assert "interrupted" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run" / "result.json").exists()


def run_slowly(
    given: list[str], folder: Path, waits: Path | None = None, goes_on: Path | None = None
) -> None:
    """Run a command, whose output goes to files; in step 7 it makes one file, awaits the other."""
    for name, descriptor in (("out.txt", 1), ("err.txt", 2)):
        with (folder / name).open("wb") as output:
            os.dup2(output.fileno(), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_step_end(
        _: object, args: object, state: TrainerState, *__: object, **___: object
    ) -> None:
        if waits and goes_on and state.global_step == 7:
            waits.touch()
            while not goes_on.exists():
                time.sleep(0.05)

    MetricsLog.on_step_end = on_step_end  # type: ignore[assignment]
    raise SystemExit(main(given))


@pytest.mark.slow
def test_an_interrupted_process_continues_from_its_last_checkpoint(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["train", str(recipe), "--out", str(out), "train.epochs=3", "train.save_steps=2"]
    given += ["--log-format", "json"]
    waits, goes_on = tmp_path / "waits", tmp_path / "goes on"
    process = start(run_slowly, given, tmp_path, waits, goes_on)
    deadline = time.monotonic() + 120
    while not waits.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    goes_on.touch()
    process.join(60)
    printed, errors = ((tmp_path / name).read_text() for name in ("out.txt", "err.txt"))
    assert process.exitcode == 130, errors
    assert f"interrupted: the checkpoint of step 7 of the run in {out} is safe" in errors
    assert errors.splitlines()[-1] == f"to go on: iwlora {shlex.join(given)}"
    assert "Traceback" not in errors
    assert not (out / "result.json").exists()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["event"] for line in lines] == [
        *("started", "training", *["checkpoint"] * 3, "interrupted", "checkpoint")
    ]
    assert [line["step"] for line in lines if line["event"] == "checkpoint"] == [2, 4, 6, 7]

    resumed = start(run_slowly, given, tmp_path)
    resumed.join()
    printed, errors = ((tmp_path / name).read_text() for name in ("out.txt", "err.txt"))
    assert resumed.exitcode == 0, errors
    *_, last = map(json.loads, printed.splitlines())
    assert (last["event"], last["text"].split(": ")[0]) == ("finished", "lora, seed 0")
    assert last["metrics"] == result(out)["metrics"]
    assert errors == ""
    assert result(out)["resumed_at_step"] == 7
    straight = tmp_path / "straight"
    given[given.index(str(out))] = str(straight)
    assert call(capsys, *given).code == 0
    assert result(straight)["resumed_at_step"] == 0
    assert result(out)["metrics"] == pytest.approx(result(straight)["metrics"], rel=1e-6)


def test_an_error_of_the_library_is_not_hidden(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("iwlora.training.loop.trainer.FineTuningTrainer.train", broken)
    with pytest.raises(ZeroDivisionError):
        main(["train", str(recipe), "--out", str(tmp_path / "run")])
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert issubclass(IwloraError, ValueError)
