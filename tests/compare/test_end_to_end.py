"""Comparisons, end to end: every number in the table is counted again by hand."""

from __future__ import annotations

import contextlib
import io
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import Outcome, call, execute_in_process, run_settings, write_recipe
from conftest import drawn_figures
from counted import (
    BLOCKS,
    HEAD,
    INNER,
    MATRICES,
    WIDTH,
    accuracy,
    bert_parameters,
    f1,
    low_rank_parameters,
    predictions,
    read,
    result,
    table,
)
from iwlora.cli import main
from warm_processes import forked_runs

ARMS = ("full", "lora", "adalora", "iw-lora")
SEEDS = (0, 1)
RANK = 4


@pytest.fixture(scope="module")
def plan(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    methods = ["full", *({"name": name, "rank": RANK} for name in ARMS[1:])]
    settings = run_settings(tiny_bert, reviews, methods=methods, seeds=list(SEEDS))
    del settings["method"]
    return settings


@pytest.fixture(scope="module")
def compared(
    plan: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Outcome]:
    """(recipe, folder, outcome) of four methods × two seeds, each run in its own process."""
    folder = tmp_path_factory.mktemp("compare")
    recipe = write_recipe(folder / "plan.yaml", plan)
    out, err = io.StringIO(), io.StringIO()
    with (
        forked_runs(),
        drawn_figures(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(["compare", str(recipe), "--out", str(folder / "out")])
    return recipe, folder / "out", Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs of a comparison are executed in this process; returns their commands."""
    return execute_in_process(monkeypatch)


def test_it_runs_through(compared: tuple[Path, Path, Outcome]) -> None:
    _, folder, outcome = compared
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    for label in ARMS:
        for seed in SEEDS:
            run = result(folder, label, seed)
            assert (run["method"], run["label"], run["seed"]) == (label, label, seed)
    for number in range(1, 9):
        assert f"[{number}/8]" in outcome.out
    assert f"report: {folder / 'report.html'}" in outcome.out
    for name in ("report.html", "summary.json", "summary.md", "comparison.yaml"):
        assert (folder / name).stat().st_size > 0
    assert "query" in outcome.out, "the picture of the importance"


def test_parameters_are_those_counted_by_hand(compared: tuple[Path, Path, Outcome]) -> None:
    _, folder, _ = compared
    assert low_rank_parameters(RANK) == 1664
    initial = round(1.5 * RANK)
    triplets = low_rank_parameters(initial) + BLOCKS * len(MATRICES) * initial  # and Λ
    trained = {
        "full": bert_parameters(),
        "lora": low_rank_parameters(RANK),
        "adalora": triplets,
        "iw-lora": low_rank_parameters(RANK),
    }
    for label in ARMS:
        for seed in SEEDS:
            run = result(folder, label, seed)
            assert run["head_parameters"] == HEAD
            assert run["trainable_parameters"] == trained[label] + HEAD
            if label != "adalora":
                assert run["adapter_parameters"] == trained[label]
                continue
            # AdaLoRA ends with RANK triplets a matrix on average, wherever they are.
            config = read(folder / label / f"seed-{seed}" / "adapter" / "adapter_config.json")
            ranks = config["rank_pattern"]
            assert sum(ranks.values()) == RANK * BLOCKS * len(MATRICES)
            count = 0
            for name, rank in ranks.items():
                inside = name.split(".layer.")[1].split(".", 1)[1]
                feed_forward = inside in ("intermediate.dense", "output.dense")
                count += rank * (WIDTH + (INNER if feed_forward else WIDTH))
            assert run["adapter_parameters"] == count


def test_metrics_are_those_of_the_predictions(compared: tuple[Path, Path, Outcome]) -> None:
    _, folder, _ = compared
    for label in ARMS:
        for seed in SEEDS:
            pairs = predictions(folder / label / f"seed-{seed}")
            assert len(pairs) == 32
            metrics = result(folder, label, seed)["metrics"]
            assert metrics["accuracy"] == pytest.approx(accuracy(pairs), abs=1e-12)
            classes = {name for pair in pairs for name in pair}
            macro = sum(f1(pairs, name) for name in classes) / len(classes)
            assert metrics["macro_f1"] == pytest.approx(macro, abs=1e-12)


def mean_and_sd(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))


def test_the_table_is_right(compared: tuple[Path, Path, Outcome]) -> None:
    _, folder, outcome = compared
    shown = table(outcome.out)
    floors = ("most frequent class", "bag of words", "linear probe")
    assert tuple(shown) == (*ARMS, *(f"{name} (floor)" for name in floors))
    summary = {arm["label"]: arm for arm in read(folder / "summary.json")["arms"]}
    markdown = (folder / "summary.md").read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for label in ARMS:
        results = [result(folder, label, seed) for seed in SEEDS]
        assert shown[label]["seeds"] == "2"
        for metric, scale, digits in (("accuracy", 100, 2), ("macro_f1", 100, 2), ("loss", 1, 4)):
            mean, sd = mean_and_sd([run["metrics"][metric] for run in results])
            cell = f"{mean * scale:.{digits}f} ± {sd * scale:.{digits}f}"
            assert shown[label][metric] == cell
            assert cell in markdown
            assert cell in page
            assert summary[label]["metrics"][metric]["mean"] == pytest.approx(mean)
            assert summary[label]["metrics"][metric]["sd"] == pytest.approx(sd)
        for field in ("trainable_parameters", "adapter_parameters"):
            counts = sorted({run[field] for run in results})
            cell = shown[label][field.replace("_", " ")].removesuffix(" ≠")
            assert cell == "–".join(f"{count:,}" for count in counts)
        seconds, _ = mean_and_sd([run["train_seconds"] for run in results])
        cell = shown[label]["training time"].removesuffix(" s")
        assert float(cell) == pytest.approx(seconds, abs=0.051)
        speed, _ = mean_and_sd([run["examples_per_second"] for run in results])
        cell = shown[label]["examples/s"].replace(",", "")
        assert float(cell) == pytest.approx(speed, abs=0.051)
    assert shown["lora"]["measuring time"] == "0.0 s"
    assert read(folder / "summary.json")["missing"] == []


def test_all_arms_of_a_seed_see_the_same_start(compared: tuple[Path, Path, Outcome]) -> None:
    _, folder, _ = compared
    for seed in SEEDS:
        recipes = [
            yaml.safe_load((folder / label / f"seed-{seed}" / "recipe.yaml").read_text())
            for label in ARMS
        ]
        for recipe in recipes:
            assert recipe["train"] == recipes[0]["train"]
            assert recipe["train"]["seed"] == seed
            assert recipe["task"] == recipes[0]["task"]


def test_a_run_of_a_comparison_is_that_of_iwlora_train(
    compared: tuple[Path, Path, Outcome], tmp_path: Path
) -> None:
    """A run that was forked by the fork server computes what it computes in any other process."""
    _, folder, _ = compared
    forked = folder / "iw-lora" / "seed-0"
    assert main(["train", str(forked / "recipe.yaml"), "--out", str(tmp_path / "alone")]) == 0
    alone = read(tmp_path / "alone" / "result.json")
    for field in ("metrics", "data_digest", "head_digest", "ranks", "notes"):
        assert alone[field] == result(folder, "iw-lora", 0)[field]
    for name in ("predictions/validation.csv", "adapter/adapter_model.safetensors"):
        assert (forked / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_what_is_done_is_not_done_again(
    compared: tuple[Path, Path, Outcome],
    in_process: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, folder, first = compared
    results = list(folder.rglob("result.json"))
    before = {path: path.read_bytes() for path in results}
    outcome = call(capsys, "compare", recipe, "--out", folder)
    assert outcome.code == 0
    assert in_process == []
    assert "8 of 8 runs are done already" in outcome.out
    assert {path: path.read_bytes() for path in results} == before
    assert table(outcome.out) == table(first.out)


def test_it_goes_on_after_a_run_was_lost(
    compared: tuple[Path, Path, Outcome],
    in_process: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, folder, _ = compared
    copy = Path(shutil.copytree(folder, tmp_path / "out"))
    shutil.rmtree(copy / "iw-lora" / "seed-1")
    (copy / "lora" / "seed-0" / "result.json").unlink()  # this one was cut short
    before = {path: path.read_bytes() for path in copy.rglob("result.json")}
    outcome = call(capsys, "compare", recipe, "--out", copy)
    assert outcome.code == 0, outcome.err
    assert "6 of 8 runs are done already" in outcome.out
    assert [Path(command[-1]).relative_to(copy).as_posix() for command in in_process] == [
        "lora/seed-0",
        "iw-lora/seed-1",
    ]
    assert {path: path.read_bytes() for path in before} == before
    for label, seed in (("lora", 0), ("iw-lora", 1)):
        again, first = result(copy, label, seed), result(folder, label, seed)
        assert again["metrics"] == pytest.approx(first["metrics"], rel=1e-5)


def test_another_recipe_is_refused_the_folder(
    compared: tuple[Path, Path, Outcome],
    in_process: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, folder, _ = compared
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = call(capsys, "compare", recipe, "train.lr=1e-4", "--out", folder)
    assert outcome.code == 2
    assert "belongs to another recipe" in outcome.err
    assert in_process == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("in_process")
def test_an_arm_that_diverges_is_reported_and_the_others_finish(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = [
        {"name": "lora", "rank": RANK, "label": "wild", "train": {"lr": 1e30}},
        {"name": "lora", "rank": RANK},
    ]
    out = tmp_path / "out"
    recipe = write_recipe(tmp_path / "plan.yaml", {**plan, "methods": methods, "seeds": [0]})
    outcome = call(capsys, "compare", recipe, "--out", out)
    assert outcome.code == 1
    lines = re.findall(r"^wild, seed 0 diverged: .*$", outcome.out, re.MULTILINE)
    assert len(lines) == 1, "it is not retried"
    assert lines[0].startswith("wild, seed 0 diverged: the loss is")
    assert (out / "lora" / "seed-0" / "result.json").is_file()
    assert not (out / "wild" / "seed-0" / "result.json").exists()
    assert "missing: wild, seed 0" in outcome.out
    assert "lower train.lr" in outcome.out
    shown = table(outcome.out)
    assert shown["wild"]["seeds"] == "0 of 1"
    assert shown["lora"]["seeds"] == "1"
    missing = read(out / "summary.json")["missing"]
    assert [(run["label"], run["seed"]) for run in missing] == [("wild", 0)]


@pytest.mark.usefixtures("in_process")
def test_a_comparison_in_which_all_runs_fail(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**plan, "methods": ["full"], "seeds": [0], "train": {**plan["train"], "lr": 1e30}}
    recipe = write_recipe(tmp_path / "plan.yaml", settings)
    outcome = call(capsys, "compare", recipe, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "no run of" in outcome.err
    assert not (tmp_path / "out" / "report.html").exists()
