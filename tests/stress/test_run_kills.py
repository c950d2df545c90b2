"""A killed run ends, bit for bit, as one that is left alone; and differences are noticed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_kills
from iwlora.training.run import train
from runs import recipe
from warm_processes import run_script


@pytest.mark.slow
def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    name = "iw-lora, estimator lora"  # the most state that a kill could lose
    log = tmp_path / "log.txt"
    code = run_script(Path(run_kills.__file__), log, "--kills", "1", "--only", name)
    printed = log.read_text(encoding="utf-8")
    assert code == 0, printed
    assert printed.endswith("1 of 1 bit-identical\n")
    assert f"\n{name:<24}" in printed


@pytest.fixture(scope="module")
def finished(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run."""
    settings = {"save_steps": 4, "deterministic": True}
    run = tmp_path_factory.mktemp("kills") / "run"
    train(recipe(tiny_bert, reviews, "iw-lora", **settings), run)
    return run


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


def lower_loss(path: Path) -> None:
    first, *rest = path.read_text().splitlines()
    record = json.loads(first)
    record["loss"] = record["loss"] * (1 - 1e-15)
    path.write_text("\n".join([json.dumps(record), *rest]) + "\n", encoding="utf-8")


DIFFERENCES: dict[str, Callable[[Path], Any]] = {
    "adapter/adapter_model.safetensors": flip_last_bit,
    "adapter/adapter_config.json": lambda path: path.unlink(),
    "predictions/validation.csv": flip_last_bit,
    "result.json": lambda path: edit(path, metrics={"accuracy": 0.123}),
    "sensitivity.json": lambda path: edit(path, batches=-1),
    "metrics.jsonl": lower_loss,
    "penalty.jsonl": lambda path: flip_last_bit(path.parent / "checkpoints" / path.name),
    "tokenizer/more.txt": lambda path: path.write_text("more"),
}


@pytest.mark.parametrize("file", DIFFERENCES)
def test_a_difference_is_noticed(finished: Path, file: str, tmp_path: Path) -> None:
    expected = run_kills.read_results(finished)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    assert run_kills.differing_files(expected, run_kills.read_results(run)) == []
    DIFFERENCES[file](run / file)
    assert run_kills.differing_files(expected, run_kills.read_results(run)) == [file]


def test_times_are_no_difference(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    assert json.loads((run / "result.json").read_text())["train_seconds"] > 0
    edit(run / "result.json", train_seconds=0, resumed_at_step=8)
    edit(run / "sensitivity.json", seconds=0)
    results = run_kills.read_results(run)
    assert run_kills.differing_files(run_kills.read_results(finished), results) == []


def test_a_run_that_ends_differently_fails_the_command(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish(settings: Any, out: Path) -> float:
        shutil.copytree(finished, out)
        if out.name == "2-0":
            flip_last_bit(out / "adapter" / "adapter_model.safetensors")
        return 1.0

    monkeypatch.setattr(run_kills, "make_recipes", lambda root: {"lora": {}})
    monkeypatch.setattr(run_kills, "finish", finish)
    monkeypatch.setattr(run_kills, "kill", lambda *_: True)
    monkeypatch.setattr(sys, "argv", ["run_kills.py", "--kills", "4"])
    assert run_kills.main() == 1
    printed = capsys.readouterr().out
    assert printed.count(" identical\n") == 3
    assert "DIFFERENT: adapter/adapter_model.safetensors\n" in printed
    assert printed.endswith("3 of 4 bit-identical\n")
