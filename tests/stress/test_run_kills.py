"""A run that is killed ends, bit for bit, as one that is left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_kills
from iwlora.training.run import train
from runs import recipe

SCRIPT = str(run_kills.__file__)


def test_three_kills_change_nothing() -> None:
    names = ["adalora", "iw-lora, free sketch", "lora, best epoch"]
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "3", "--only", *names],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("3 of 3 bit-identical\n")
    assert all(f"\n{name:<24}" in f"\n{done.stdout}" for name in names)


@pytest.fixture(scope="module")
def two(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    """A run, and what another one of the same recipe ended with."""
    root = tmp_path_factory.mktemp("kills")
    wanted = recipe(tiny_bert, reviews, "iw-lora", save_steps=4, deterministic=True)
    for name in ("first", "second"):
        train(wanted, root / name)
    return root / "first", run_kills.ending(root / "second")


def flip(path: Path) -> None:
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
    "adapter/adapter_model.safetensors": flip,
    "adapter/adapter_config.json": lambda path: path.unlink(),
    "predictions/validation.csv": flip,
    "result.json": lambda path: edit(path, metrics={"accuracy": 0.123}),
    "sensitivity.json": lambda path: edit(path, batches=-1),
    "metrics.jsonl": lower_loss,
    "penalty.jsonl": lambda path: flip(path.parent / "checkpoints" / path.name),
    "tokenizer/more.txt": lambda path: path.write_text("more"),
}


@pytest.mark.parametrize("file", DIFFERENCES)
def test_a_difference_is_noticed(
    two: tuple[Path, dict[str, Any]], file: str, tmp_path: Path
) -> None:
    first, expected = two
    run = Path(shutil.copytree(first, tmp_path / "run"))
    assert run_kills.differing(expected, run_kills.ending(run)) == []
    DIFFERENCES[file](run / file)
    assert run_kills.differing(expected, run_kills.ending(run)) == [file]


def test_times_are_no_difference(two: tuple[Path, dict[str, Any]]) -> None:
    result = json.loads((two[0] / "result.json").read_text())
    edit(two[0] / "result.json", train_seconds=0, resumed_at_step=8)
    assert result["train_seconds"] > 0
    assert run_kills.differing(two[1], run_kills.ending(two[0])) == []


def test_a_run_that_ends_otherwise_fails_the_command(
    two: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def finish(settings: Any, out: Path) -> float:
        shutil.copytree(two[0], out)
        if out.name == "2-0":
            flip(out / "adapter" / "adapter_model.safetensors")
        return 1.0

    monkeypatch.setattr(run_kills, "recipes", lambda root: {"lora": {}})
    monkeypatch.setattr(run_kills, "finish", finish)
    monkeypatch.setattr(run_kills, "killed", lambda *_: True)
    monkeypatch.setattr(sys, "argv", ["run_kills.py", "--kills", "4"])
    assert run_kills.main() == 1
    told = capsys.readouterr().out
    assert told.count(" identical\n") == 3
    assert "DIFFERENT: adapter/adapter_model.safetensors\n" in told
    assert told.endswith("3 of 4 bit-identical\n")
