"""Files are written whole or not at all, and output paths are checked before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from commands import call, check_plain
from iwlora import IwloraError
from iwlora.errors import CannotWrite
from iwlora.results.layout import PART_SUFFIX
from iwlora.results.writing import (
    check_writable,
    follow_umask,
    replacing,
    write_at,
    write_errors,
    write_text,
)
from iwlora.training.loop import callbacks
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import recipe

NOWHERE = Path("/proc/iwlora")  # where not even root makes a file or a folder


def test_the_unfinished_file_of_a_killed_process_is_removed(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    with replacing(tmp_path / "written.txt") as part:
        assert [path.name for path in tmp_path.iterdir()] == [part.name]
    (tmp_path / "written.txt").rename(part)  # as SIGKILL would have left it
    assert part.name.startswith(".written.txt.")
    assert part.name.endswith(PART_SUFFIX)
    run = RunDir.open(tmp_path, recipe(tiny_bert, reviews))
    assert not part.exists()
    run.set_status("failed")
    part.touch()
    RunDir.open(tmp_path, recipe(tiny_bert, reviews, "iw-lora"))  # as it failed at once


def test_a_failed_write_keeps_the_previous_best_epoch(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    save = safetensors.torch.save_file

    def break_off(tensors: Any, file: Path, **options: Any) -> None:
        saved.append(Path(file))
        if len(saved) == 2:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, file, **options)

    task = {**reviews, "selection": 0.25}
    score = iter([0.1, 0.2])
    monkeypatch.setattr(safetensors.torch, "save_file", break_off)
    monkeypatch.setattr(
        callbacks.KeepBestEpoch,
        "on_evaluate",
        _scored(callbacks.KeepBestEpoch.on_evaluate, score),
        raising=True,
    )
    with pytest.raises(IwloraError, match=r"cannot write .*/best.safetensors .*No space left"):
        train(recipe(tiny_bert, task), tmp_path)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name == "best.safetensors"
    assert load_file(kept)
    assert saved[0] != kept


def _scored(method: Any, scores: Any) -> Any:
    """``on_evaluate`` with scores that rise."""

    def on_evaluate(self: Any, *args: Any, metrics: Any = None, **kwargs: Any) -> Any:
        return method(self, *args, metrics={"eval_accuracy": next(scores)}, **kwargs)

    return on_evaluate


class Library(Exception):
    """An error that has nothing to do with writing."""


def test_only_errors_of_writing_are_reworded(tmp_path: Path) -> None:
    with pytest.raises(Library), write_errors("x", tmp_path):
        raise Library
    message = r"cannot write x into .*\(basic_ios: error\); "
    with pytest.raises(IwloraError, match=message), write_errors("x", tmp_path):
        raise RuntimeError("basic_ios: error\nException raised from ...")
    message = r"cannot write x into .*\(No such file or directory \(os error 2\)\); "
    with pytest.raises(CannotWrite, match=message), write_errors("x", tmp_path):
        Tokenizer(WordLevel({"a": 0})).save(str(tmp_path / "absent" / "tokenizer.json"))
    message = rf"cannot write {NOWHERE}/file \(No such file or directory\)$"
    with pytest.raises(CannotWrite, match=message), write_errors("x", NOWHERE):
        write_text(NOWHERE / "file", "text")


def test_bytes_are_written_behind_those_that_count(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.bin"
    write_at(file, 0, b"abcdef")
    write_at(file, 3, b"xy")
    assert file.read_bytes() == b"abcxy"
    with pytest.raises(CannotWrite, match=r"cannot write rows\.bin into /proc/iwlora"):
        write_at(NOWHERE / "rows.bin", 0, b"a")


def test_check_writable_leaves_no_file(tmp_path: Path) -> None:
    check_writable(tmp_path / "deep" / "file.csv", "--output")
    assert [path.name for path in tmp_path.rglob("*")] == ["deep"]
    with pytest.raises(IwloraError, match=r"--output .* cannot be written: it is a folder"):
        check_writable(tmp_path, "--output")


@pytest.fixture(scope="module")
def finished(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(recipe(tiny_bert, reviews), folder)
    return folder


COMMANDS: dict[str, Any] = {
    "train": lambda run, rows, task: ["train", run / "recipe.yaml", "--out", NOWHERE],
    "export": lambda run, rows, task: ["export", run, "--to", NOWHERE],
    "merge": lambda run, rows, task: ["export", run, "--merge", "--to", NOWHERE],
    "predict": lambda run, rows, task: [
        *("predict", run, "--input", rows, "--output", NOWHERE / "a.csv")
    ],
    "measure": lambda run, rows, task: ["measure", *task, "--out", NOWHERE / "a.json"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unwritable_output_is_reported_before_any_work_starts(
    finished: Path,
    tiny_bert: Path,
    reviews: dict[str, str],
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    for function in ("load.load_backbone", "prediction.new_rows.load_saved"):
        monkeypatch.setattr(f"iwlora.training.{function}", work)
    task = ["--model", str(tiny_bert), *(f"task.{key}={value}" for key, value in reviews.items())]
    outcome = call(capsys, *COMMANDS[command](finished, reviews["validation"], task))
    assert outcome.code == 2
    check_plain(outcome)
    assert str(NOWHERE.parent) in outcome.err
    assert "writ" in outcome.err


def test_modes_that_cannot_be_set_are_reported(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="cannot write the modes of files"):
        follow_umask(tmp_path / "not-there")
