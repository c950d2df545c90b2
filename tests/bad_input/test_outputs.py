"""Outputs that are aimed at results, and links that lead out of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import Command, call, snapshot, write_recipe


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "inside", ["sensitivity.json", "result.json", "adapter/adapter_config.json", "status.json"]
)
def test_a_measurement_does_not_replace_what_a_run_has_made(
    damaged: Path, tiny_bert: Path, reviews: dict[str, str], refused: Command, inside: str
) -> None:
    before = snapshot(damaged)
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    outcome = refused("measure", "--model", tiny_bert, *task, "--out", damaged / inside)
    assert "choose another path" in outcome.err or "is not a sensitivity file" in outcome.err
    assert snapshot(damaged) == before


def test_a_measurement_replaces_nothing_but_a_measurement(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, refused: Command
) -> None:
    mine = tmp_path / "package.json"
    mine.write_text('{"name": "mine"}')
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    outcome = refused("measure", "--model", tiny_bert, *task, "--out", mine)
    assert "package.json is not a sensitivity file" in outcome.err
    assert snapshot(tmp_path) == {"package.json": b'{"name": "mine"}'}


def test_predictions_do_not_replace_those_of_the_run(
    damaged: Path, reviews: dict[str, str], refused: Command
) -> None:
    before = snapshot(damaged)
    rows = reviews["validation"]
    for output in (
        damaged / "predictions" / "validation.csv",
        damaged / "metrics.jsonl",
        damaged / "adapter" / ".." / "predictions" / "new.csv",
    ):
        outcome = refused("predict", damaged, "--input", rows, "--output", output)
        assert "belongs to the results in" in outcome.err
    assert snapshot(damaged) == before


def test_a_new_file_may_lie_beside_the_results(
    damaged: Path, reviews: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = damaged / "answers.csv"
    arguments = ("predict", damaged, "--input", reviews["validation"], "--output", output)
    assert call(capsys, *arguments).code == 0
    assert call(capsys, *arguments).code == 0


@pytest.mark.parametrize("place", ["metrics.jsonl", "adapter", "predictions", "checkpoints"])
def test_a_run_does_not_write_through_a_link(
    recipe: Path, finished: Path, tmp_path: Path, refused: Command, place: str
) -> None:
    before = snapshot(finished)
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_bytes(recipe.read_bytes())
    (out / place).symlink_to(finished / place)
    outcome = refused("train", recipe, "--out", out)
    assert f"{place} is a symbolic link that leads out of" in outcome.err
    assert snapshot(finished) == before


def test_a_link_within_the_folder_and_one_to_it_are_followed(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "disk" / "run"
    real.mkdir(parents=True)
    (tmp_path / "run").symlink_to(real)
    assert call(capsys, "train", recipe, "--out", tmp_path / "run").code == 0
    assert (real / "result.json").is_file()


def test_a_way_back_over_a_folder_that_is_not_there(
    settings: dict[str, Any], damaged: Path, tmp_path: Path, refused: Command
) -> None:
    before = snapshot(damaged)
    recipe = write_recipe(tmp_path / "other.yaml", settings)
    out = f"{tmp_path}/none/../damaged"
    assert "belongs to another recipe" in refused("train", recipe, "--out", out).err
    assert snapshot(damaged) == before
    assert not (tmp_path / "none").exists()


@pytest.fixture
def plan(settings: dict[str, Any], tmp_path: Path) -> Path:
    whole = {**settings, "methods": ["head"], "seeds": [0]}
    del whole["method"]
    return write_recipe(tmp_path / "plan.yaml", whole)


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """A folder that says which runs it compares; the runs themselves are not looked at."""
    folder = tmp_path / "comparison"
    folder.mkdir()
    (folder / "comparison.yaml").write_text(
        "model: m\ntask: t\nmethods: [head, lora]\nseeds: [0, 1]\n"
    )
    return folder


def test_a_comparison_does_not_take_the_place_of_another(
    plan: Path, comparison: Path, refused: Command
) -> None:
    before = snapshot(comparison)
    outcome = refused("compare", plan, "--out", comparison)
    assert "holds a comparison with the methods lora, which this one lacks" in outcome.err
    outcome = refused("compare", plan, "methods=[head, bitfit, lora]", "--out", comparison,
                      "unequal_budgets=true")  # fmt: skip
    assert "with the seeds 1, which" in outcome.err
    assert snapshot(comparison) == before


def test_a_comparison_does_not_begin_among_other_things(
    plan: Path, finished: Path, tmp_path: Path, refused: Command
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "holds notes.txt" in refused("compare", plan, "--out", tmp_path / "mine").err
    before = snapshot(finished)
    assert "and no comparison" in refused("compare", plan, "--out", finished).err
    assert snapshot(finished) == before


def test_compared_results_do_not_take_the_place_of_results(
    finished: Path, comparison: Path, tmp_path: Path, refused: Command
) -> None:
    before = snapshot(finished), snapshot(comparison)
    for out in (finished, comparison):
        assert "choose another folder" in refused("compare", finished, "--out", out).err
    assert (snapshot(finished), snapshot(comparison)) == before


def test_compared_results_may_become_more_and_no_others(
    finished: Path, damaged: Path, tmp_path: Path, refused: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert call(capsys, "compare", finished, "--out", out).code == 0
    assert call(capsys, "compare", finished, damaged, "--out", out).code == 0
    assert "compares other results" in refused("compare", finished, "--out", out).err


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("place", ["logs", "report.html", "head", "head/seed-0", "search/head"])
def test_a_comparison_does_not_write_through_a_link(
    plan: Path, finished: Path, tmp_path: Path, refused: Command, place: str
) -> None:
    before = snapshot(finished)
    out = tmp_path / "out"
    link = out / place
    link.parent.mkdir(parents=True)
    link.symlink_to(finished)
    outcome = refused("compare", plan, "--out", out)
    assert f"{link} is a symbolic link that leads out of {out}" in outcome.err
    assert snapshot(finished) == before


def test_a_report_that_cannot_be_written_is_told_before_it_is_drawn(
    damaged: Path, refused: Command
) -> None:
    (damaged / "report.html").mkdir()
    before = snapshot(damaged)
    outcome = refused("report", damaged)
    assert "report.html cannot be written: it is a folder" in outcome.err
    assert snapshot(damaged) == before
    assert not (damaged / "figures").exists()


def test_a_run_is_told_where_its_way_led_back_over_no_folder(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = call(capsys, "train", recipe, "--out", f"{tmp_path}/none/../run")
    assert outcome.code == 0
    assert "seed 0: accuracy" in outcome.out
    assert not (tmp_path / "none").exists()
