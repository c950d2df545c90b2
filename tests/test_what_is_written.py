"""What iwlora writes: its modes, its names, and what is left out of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from commands import call, run_settings, write_recipe
from iwlora import export, predict
from iwlora.errors import IwloraError
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import as_foreign

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora", "rank": 4},
    "bitfit": {"name": "bitfit"},
    "full": {"name": "full"},
}
MASK = 0o027


@pytest.fixture(scope="module")
def runs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Runs, and what is made from them, by a user who hides files from others only."""
    folder = tmp_path_factory.mktemp("written")
    task = {**reviews, "selection": 0.2}
    short = {"epochs": 1, "batch_size": 32, "max_length": 32, "precision": "fp32", "save_steps": 1}
    before = os.umask(MASK)
    try:
        for name, method in METHODS.items():
            settings = run_settings(tiny_bert, task, method=method, train=short)
            train(build(settings), folder / name)
            export(folder / name, folder / f"{name}-exported")
        export(folder / "lora", folder / "merged", merge=True)
        predict(folder / "lora", reviews["validation"], folder / "predictions.csv")
    finally:
        os.umask(before)
    return folder


def test_modes_follow_the_umask(runs: Path) -> None:
    paths = [path for path in runs.rglob("*") if path.name != ".lock"]
    assert {"model.safetensors", "trainable.safetensors", "best.safetensors"} <= {
        path.name for path in paths
    }
    wrong = [
        f"{path}: {oct(mode)}"
        for path in paths
        if (mode := stat.S_IMODE(path.stat().st_mode))
        != (0o777 if path.is_dir() else 0o666) & ~MASK
    ]
    assert not wrong


def test_adapters_and_exports_name_no_folder_of_this_machine(runs: Path, tiny_bert: Path) -> None:
    places = {str(tiny_bert), str(tiny_bert.parent), str(runs), str(Path.home())}
    kept = ("adapter", "model", "tokenizer")
    files = [file for name in METHODS for kind in kept for file in (runs / name / kind).rglob("*")]
    files += [file for name in METHODS for file in (runs / f"{name}-exported").rglob("*")]
    files += [*(runs / "merged").rglob("*")]
    assert len(files) > 20
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        assert not [place for place in places if place.encode() in content], file
    assert str(tiny_bert).encode() in (runs / "lora" / "recipe.yaml").read_bytes(), "else no check"


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(runs / "lora", tmp_path / "run"))
    as_foreign(copied)
    return copied


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "adapter_config.json",
        "generation_config.json",
        "config.json",
        "pytorch_model.bin",
        "tokenizer.py",
        "more/tokenizer.json",
    ],
)
def test_a_tokenizer_brings_no_other_files_into_an_export(
    run: Path, tmp_path: Path, name: str
) -> None:
    file = run / "tokenizer" / name
    file.parent.mkdir(exist_ok=True)
    content = "{}" if name == "config.json" else "theirs"
    file.write_text(content)
    with pytest.raises(IwloraError, match=rf"{name} is no file of a tokenizer"):
        export(run, tmp_path / "to")
    assert not (tmp_path / "to").exists()
    file.unlink()
    to = export(run, tmp_path / "to")
    assert load_file(to / "adapter_model.safetensors").keys()


def with_columns(run: Path, names: list[str]) -> None:
    """The run as one of a task with these text columns."""
    stored = json.loads((run / "result.json").read_text())
    as_foreign(run, text=names, kind=stored["kind"])


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("names", [["row"], ["prediction"], ["row", "probability_pos"]])
def test_columns_of_the_user_survive(
    run: Path, tmp_path: Path, names: list[str], ending: str
) -> None:
    with_columns(run, names)
    rows = [[f"a good {name} {number}" for name in names] for number in range(3)]
    with (tmp_path / "in.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([names, *rows])
    out = predict(run, tmp_path / "in.csv", tmp_path / f"out{ending}")
    text = out.read_text()
    found: list[dict[str, Any]] = (
        list(csv.DictReader(text.splitlines()))
        if ending == ".csv"
        else [json.loads(line) for line in text.splitlines()]
    )
    assert [[record[name] for name in names] for record in found] == rows
    for ours in ("row", "prediction", "probability_pos"):
        values = [record[f"iwlora_{ours}" if ours in names else ours] for record in found]
        assert len(values) == 3
        if ours == "row":
            assert [int(value) for value in values] == [0, 1, 2]
        elif ours == "prediction":
            assert set(values) <= {"neg", "pos"}
        else:
            assert all(0 <= float(value) <= 1 for value in values)


def test_formulas_in_texts_are_marked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n=cmd|' /C calc'!A0\n-1.5\n")
    with predict(run, tmp_path / "in.csv", tmp_path / "out.csv").open() as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == ["'=cmd|' /C calc'!A0", "-1.5"]


def test_stored_predictions_are_read_as_they_were(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes whose names begin like formulas are scored again from what the run stored."""
    for split in ("train", "validation"):
        rows = [f"a good film {k},{('=pos', '-neg', 'x')[k % 3]}" for k in range(24)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,mood", *rows]) + "\n")
    task = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation")}
    short = {"epochs": 0.5, "batch_size": 8, "max_length": 32, "precision": "fp32"}
    settings = run_settings(tiny_bert, {**task, "text": "text", "label": "mood"}, train=short)
    train(build(settings), tmp_path / "run")
    stored = (tmp_path / "run" / "predictions" / "validation.csv").read_text()
    assert "'=pos" in stored
    assert ",=pos" not in stored
    outcome = call(capsys, "verify", tmp_path / "run")
    assert "intact   metrics of predictions/validation.csv" in outcome.out


@pytest.mark.parametrize(
    "command",
    [
        ["train", "{recipe}", "--out", ""],
        ["train", "{recipe}", "--out="],
        ["compare", "{recipe}", "{recipe}", "--out", ""],
        ["measure", "--model", "{model}", "--out", ""],
        ["predict", "{run}", "--input", "{rows}", "--output", ""],
        ["export", "{run}", "--to", ""],
        ["report", ""],
        ["verify", ""],
        ["tasks", "average", ""],
    ],
    ids=" ".join,
)
def test_an_empty_name_is_refused(
    run: Path,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    recipe = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, reviews))
    names = {"recipe": recipe, "model": tiny_bert, "run": run, "rows": reviews["validation"]}
    outcome = call(capsys, *(text.format_map(names) for text in command))
    assert outcome.code == 2
    assert "error: " in outcome.err
    assert "an empty value was given" in outcome.err
    assert not list(here.iterdir())


def test_an_empty_name_is_refused_in_python(
    run: Path, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    for call_with_empty_name in (
        lambda: train(build(run_settings(tiny_bert, reviews)), ""),
        lambda: export(run, ""),
        lambda: export("", tmp_path / "to"),
        lambda: predict(run, reviews["validation"], ""),
        lambda: RunDir.finished(""),
    ):
        with pytest.raises(IwloraError, match=r"an empty path was given|accepted endings"):
            call_with_empty_name()
    assert not list(here.iterdir())
