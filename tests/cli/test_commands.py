"""Each command, as a user gives it, and what it leaves."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from commands import call, run_settings, write_recipe
from iwlora import Sensitivity, __version__
from iwlora.methods import METHODS
from iwlora.tasks import names
from iwlora.tasks.kinds import KINDS
from iwlora.training.recipe import build
from iwlora.training.run import train

COMMANDS = ("measure", "train", "compare", "report", "export", "predict", "methods", "tasks")


@pytest.fixture(scope="module")
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    return run_settings(tiny_bert, reviews)


@pytest.fixture(scope="module")
def recipe(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("cli") / "recipe.yaml", settings)


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    train(build(settings), folder)
    return folder


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def seconds_of(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def test_help_is_quick() -> None:
    assert statistics.median(seconds_of("-m", "iwlora", "--help") for _ in range(3)) < 1


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["tasks"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from iwlora.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_a_command_ends_without_a_look_at_all_that_was_imported() -> None:
    script = (
        "import atexit, gc\n"
        "from iwlora.cli import main\n"
        "atexit.register(lambda: print(len(gc.get_objects()) < 1000 < gc.get_freeze_count()))\n"
        "main(['tasks'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.endswith(b"True\n")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    helped = call(capsys, "--help")
    assert helped.code == 0
    for command in COMMANDS:
        assert f"\n    {command} " in helped.out
        assert call(capsys, command, "--help").code == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version").out == f"iwlora {__version__}\n"


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    listed = call(capsys, "methods")
    assert listed.code == 0
    for name, method in METHODS.items():
        line = next(line for line in listed.out.splitlines() if line.startswith(f"{name} "))
        assert method.summary in line
        for option, field in method.model_fields.items():
            assert f"{option}={field.default}" in listed.out
    tried = listed.out.partition("\n\n")[2].splitlines()
    assert tried[0].split()[:3] == ["bert", "roberta", "electra"]
    assert [line.split()[0] for line in tried[1 : len(METHODS) + 1]] == list(METHODS)
    assert any("prefix gives keys and values" in line for line in tried)


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    listed = call(capsys, "tasks")
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert [line.split()[0] for line in lines][: len(names())] == list(names())
    assert all(kind in listed.out for kind in KINDS)
    assert "task.train=FILE" in lines[-1]


# --- measure ---


@pytest.fixture(scope="module")
def measured(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("measure") / "new" / "importance.json"
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    batches = ["--max-batches", "3", "--tolerance", "0"]
    given = ["--model", str(tiny_bert), *task, "train.max_length=32", "train.batch_size=8"]
    return out, ["measure", *given, "--out", str(out), *batches]


def test_measure(measured: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    out, command = measured
    outcome = call(capsys, *command)
    assert outcome.code == 0
    assert sorted(path.name for path in out.parent.iterdir()) == [
        f"importance.{ending}" for ending in ("json", "png", "svg")
    ]
    assert (out.with_suffix(".png")).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in out.with_suffix(".svg").read_text()

    sensitivity = Sensitivity.load(out)
    assert sensitivity.batches == 3
    assert len(sensitivity.values) == 12
    total = sum(sensitivity.values.values())
    lines = [line.split() for line in outcome.out.splitlines()]
    rows = [line for line in lines if line and line[-1] in sensitivity.values]
    ranked = sorted(sensitivity.values, key=lambda name: -sensitivity.values[name])
    assert [row[-1] for row in rows] == ranked
    for share, value, error, name in rows:
        assert float(share.rstrip("%")) / 100 == pytest.approx(
            sensitivity.values[name] / total, abs=5.1e-5
        )
        assert float(value) == pytest.approx(sensitivity.values[name], rel=1e-3)
        assert float(error) == pytest.approx(sensitivity.stderr[name], rel=0.06)
    assert "3 batches" in outcome.out
    assert str(out) in outcome.out


def test_measure_is_what_a_run_measures(
    measured: tuple[Path, list[str]],
    settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, command = measured
    assert call(capsys, *command).code == 0
    method = {"name": "iw-lora", "max_batches": 3, "tolerance": 0}
    usual = {**settings["train"], "batch_size": 8, "precision": "auto"}
    train(build({**settings, "method": method, "train": usual}), tmp_path)
    assert Sensitivity.load(tmp_path / "sensitivity.json").values == Sensitivity.load(out).values


# --- report, export, predict ---


def test_report(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = call(capsys, "report", finished)
    assert outcome.code == 0
    assert f"{result(finished)['metrics']['accuracy'] * 100:.2f}" in outcome.out
    assert f"report: {finished / 'report.html'}" in outcome.out
    assert "<html" in (finished / "report.html").read_text()
    for name in ("report.html", "summary.json", "summary.md"):
        assert (finished / name).stat().st_size > 0


@pytest.mark.parametrize("merge", [False, True])
def test_export(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], merge: bool
) -> None:
    to = tmp_path / "deep" / "adapter"
    outcome = call(capsys, "export", finished, "--to", to, *(["--merge"] if merge else []))
    assert outcome.code == 0
    assert outcome.out == f"{to}\n"
    weights = "model.safetensors" if merge else "adapter_model.safetensors"
    assert (to / weights).is_file()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_predict(
    finished: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: str,
) -> None:
    out = tmp_path / f"predictions.{ending}"
    outcome = call(capsys, "predict", finished, "--input", reviews["validation"], "--output", out)
    assert outcome.code == 0
    assert outcome.out == f"{out}\n"
    with out.open(newline="", encoding="utf-8") as stream:
        rows: list[dict[str, Any]] = (
            list(csv.DictReader(stream))
            if ending == "csv"
            else [json.loads(line) for line in stream]
        )
    with Path(reviews["validation"]).open(newline="") as stream:
        texts = [row["text"].strip() for row in csv.DictReader(stream)]
    assert [row["text"] for row in rows] == texts
    assert [int(row["row"]) for row in rows] == list(range(32))
    # What the run itself predicted on these rows is the truth.
    with (finished / "predictions" / "validation.csv").open(newline="") as stream:
        for row, known in zip(rows, csv.DictReader(stream), strict=True):
            assert row["prediction"] == known["prediction"]
            shares = {name: float(row[f"probability_{name}"]) for name in ("neg", "pos")}
            assert sum(shares.values()) == pytest.approx(1)
            assert max(shares, key=lambda name: shares[name]) == row["prediction"]
