"""Runs that are damaged or not finished, and rows that cannot be classified."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from commands import Command, call, snapshot
from runs import as_foreign

READERS = {
    "predict": lambda run, rows, out: ("predict", run, "--input", rows, "--output", f"{out}.csv"),
    "export": lambda run, rows, out: ("export", run, "--to", out),
    "merge": lambda run, rows, out: ("export", run, "--to", out, "--merge"),
    "report": lambda run, rows, out: ("report", run),
}


@pytest.mark.parametrize(
    ("file", "content", "readers", "expected"),
    [
        ("result.json", b'{"method": "lo', "predict export merge report", "result.json"),
        ("result.json", b"", "predict export merge report", "result.json"),
        ("result.json", b"[]", "predict export merge report", "result.json"),
        ("result.json", b"\xff\xfe", "predict export merge report", "result.json"),
        ("result.json", b"{}", "predict merge report", "result.json"),
        ("result.json", None, "predict export merge report", "finished"),
        ("recipe.yaml", b"model: [", "predict merge", "recipe.yaml"),
        ("recipe.yaml", None, "predict export merge", "recipe.yaml"),
        ("sensitivity.json", b'{"format": "iwlora', "report", "sensitivity.json"),
        ("sensitivity.json", b"{}", "report", "sensitivity.json"),
        ("metrics.jsonl", b"{not json}\n", "report", "metrics.jsonl"),
        ("environment.json", b"{", "report", "environment.json"),
        ("adapter/adapter_config.json", b"{", "predict export merge", "adapter"),
        ("adapter/adapter_config.json", None, "predict export merge", "adapter"),
        ("adapter/adapter_model.safetensors", b"\x08", "predict export merge", "adapter"),
        ("adapter/adapter_model.safetensors", None, "predict export merge", "adapter"),
        ("tokenizer/tokenizer.json", b"{", "predict export merge", "tokenizer"),
        ("tokenizer/tokenizer.json", None, "predict export merge", "tokenizer"),
        ("tokenizer/tokenizer_config.json", None, "predict", "names no token to pad with"),
        (
            "tokenizer/tokenizer_config.json",
            b'{"model_max_length": "x"}',
            "predict",
            "not a number",
        ),
        ("adapter/adapter_config.json", b"[" * 100_000, "predict export merge", "too deeply"),
        ("result.json", b"[" * 100_000, "predict export merge report", "too deeply"),
        ("sensitivity.json", b"[" * 100_000, "report", "too deeply"),
    ],
)
def test_a_damaged_run(
    damaged: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    refused: Command,
    file: str,
    content: bytes | None,
    readers: str,
    expected: str,
) -> None:
    if file.startswith("tokenizer/") or file == "sensitivity.json":
        as_foreign(damaged)  # else its digest shows the damage
    if content is None:
        (damaged / file).unlink()
    else:
        (damaged / file).write_bytes(content)
    for reader in readers.split():
        out = tmp_path / "made"
        outcome = refused(*READERS[reader](damaged, reviews["validation"], out))
        assert expected in outcome.err, reader
        assert not list(tmp_path.glob("made*")), reader
        assert not list(tmp_path.glob(".made*")), reader


@pytest.mark.parametrize("content", ['{"method": "lo', "[]", "{}"])
def test_training_does_not_trust_a_broken_result(
    damaged: Path, refused: Command, content: str
) -> None:
    (damaged / "result.json").write_text(content)
    assert "result.json" in refused("train", damaged / "recipe.yaml", "--out", damaged).err


def test_training_does_not_trust_a_broken_sensitivity(damaged: Path, refused: Command) -> None:
    (damaged / "result.json").unlink()
    (damaged / "sensitivity.json").write_text('{"format": "iwlora')
    outcome = refused("train", damaged / "recipe.yaml", "--out", damaged)
    assert "sensitivity.json" in outcome.err
    assert not (damaged / "result.json").exists()
    assert json.loads((damaged / "status.json").read_text())["state"] == "failed"


def test_training_that_diverges_is_not_finished(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = call(capsys, "train", recipe, "train.lr=1e30", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "lower train.lr" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run" / "result.json").exists()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "diverged"


def test_what_is_no_run(tmp_path: Path, reviews: dict[str, str], refused: Command) -> None:
    out = tmp_path / "made"
    for folder in (tmp_path / "none", tmp_path):
        for arguments in (
            reader(folder, reviews["validation"], out) for reader in READERS.values()
        ):
            assert str(folder) in refused(*arguments).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("txt,id\na,1\n", "unknown column 'text'; did you mean 'txt'?"),
        ("", "is empty"),
        ("text\n", "holds no rows"),
        ("text\na film\n\n  \n", "is empty"),
    ],
)
def test_rows_that_cannot_be_classified(
    finished: Path, tmp_path: Path, refused: Command, text: str, expected: str
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(text)
    out = tmp_path / "out.csv"
    assert expected in refused("predict", finished, "--input", rows, "--output", out).err
    assert not out.exists()


def test_predictions_that_cannot_be_written(
    finished: Path, reviews: dict[str, str], tmp_path: Path, refused: Command
) -> None:
    rows = Path(shutil.copy(reviews["validation"], tmp_path / "rows.csv"))
    before = rows.read_bytes()

    def to(output: Path) -> str:
        return refused("predict", finished, "--input", rows, "--output", output).err

    assert "accepted endings are .csv, .jsonl, .parquet, and - alone" in to(tmp_path / "out.xlsx")
    assert "is the input file" in to(rows)
    assert "rows.csv" in to(rows / "out.csv")
    assert "no.csv" in refused("predict", finished, "--input", "no.csv", "--output", rows).err
    assert rows.read_bytes() == before
    with rows.open(newline="") as stream:
        assert len(list(csv.reader(stream))) == 33


def test_an_export_never_overwrites(finished: Path, tmp_path: Path, refused: Command) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for merge in ([], ["--merge"]):
        for to in (tmp_path, tmp_path / "mine.txt"):
            outcome = refused("export", finished, "--to", to, *merge)
            assert "not an empty folder" in outcome.err
        assert (
            "cannot write" in refused("export", finished, "--to", tmp_path / "mine.txt" / "x").err
        )
    assert snapshot(tmp_path) == {"mine.txt": b"mine"}
