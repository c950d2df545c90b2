"""Cells run in their order, stop in time, and leave what is finished in a file of scores."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comparison_folders import comparison_of  # noqa: F401
from iwlora_study.runner import running, scores
from iwlora_study.runner.cells import Cell, load_cells, predicted_core_minutes
from iwlora_study.runner.command import STAGES, STUDY

RECIPE = """
task: {name: builtin/entailment, max_train: 64, score_rows: 32, max_validation: 32}
methods: [lora, iw-lora]
seeds: [0, 1]
search: {lr: [0.001, 0.003, 0.01]}
train: {max_steps: 8, batch_size: 32}
"""
Fake = Callable[[Cell, Path], list[str]]


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    for name in ("01-first", "02-second"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE)
    return load_cells(tmp_path)


def finished(comparison: Path) -> Fake:
    """A command that leaves a finished comparison, as ``iwlora compare`` does."""
    code = "import shutil, sys; shutil.copytree(*sys.argv[1:])"
    return lambda cell, out: [sys.executable, "-c", code, str(comparison), str(out)]


def started(comparison: Path) -> Fake:
    """A command that never ends by itself; SIGTERM ends it."""
    code = "import shutil, sys, time; shutil.copytree(*sys.argv[1:]); time.sleep(600)"
    return lambda cell, out: [sys.executable, "-c", code, str(comparison), str(out)]


def test_finished_cells_are_stored_and_not_run_again(
    cells: list[Cell],
    tmp_path: Path,
    comparison_of: Callable[..., Path],  # noqa: F811
) -> None:
    comparison = comparison_of(tmp_path / "made", arms=("lora", "iw-lora"), seeds=2)
    stored, runs, said = tmp_path / "scores", tmp_path / "runs", list[str]()
    where = (cells, "screen", stored, runs, 1.0)
    assert running.run_cells(*where, finished(comparison), said.append)
    (first, second) = scores.load_all(stored)
    assert (first.cell, second.cell, first.complete) == ("01-first", "02-second", True)
    assert first.arms == ["lora", "iw-lora"]
    assert set(first.values("lora", "score")) == {0, 1}
    assert first.values("lora", "score") == first.values("lora", "accuracy")
    assert first.adapter_parameters("lora") == 294_912
    assert first.processor_seconds > 0
    assert str(tmp_path) not in first.model_dump_json()

    said.clear()
    assert running.run_cells(*where, finished(tmp_path / "nothing"), said.append)
    assert said == ["01-first: done already", "02-second: done already"]
    cells[0].path.write_text(RECIPE.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert not running.is_done(load_cells(tmp_path)[0], stored)


def test_a_cell_without_time_is_stopped_and_goes_on(
    cells: list[Cell],
    tmp_path: Path,
    comparison_of: Callable[..., Path],  # noqa: F811
) -> None:
    comparison = comparison_of(tmp_path / "made", arms=("lora", "iw-lora"), seeds=2)
    stored, runs, said = tmp_path / "scores", tmp_path / "runs", list[str]()
    began = time.monotonic()
    done = running.run_cells(
        cells, "screen", stored, runs, 2 / 60, started(comparison), said.append
    )
    assert not done
    assert time.monotonic() - began < 60
    (only,) = scores.load_all(stored)  # what was finished is kept, the second cell never began
    assert len(only.runs) == 4
    assert not only.complete
    assert not running.is_done(cells[0], stored)
    spent = only.processor_seconds
    idle = [sys.executable, "-c", ""]  # the comparison goes on in the same folder, and ends
    assert not running.run_cells(
        cells[:1], "screen", stored, runs, 0.0, lambda cell, out: idle, said.append
    )
    assert running.run_cells(
        cells[:1], "screen", stored, runs, 1.0, lambda cell, out: idle, said.append
    )
    assert scores.load_all(stored)[0].processor_seconds >= spent


def test_a_command_that_fails_leaves_no_scores(cells: list[Cell], tmp_path: Path) -> None:
    broken = [sys.executable, "-c", "raise SystemExit(2)"]
    said = list[str]()
    where = (cells, "screen", tmp_path / "scores", tmp_path / "runs", 1.0)
    assert not running.run_cells(*where, lambda cell, out: broken, said.append)
    assert [line for line in said if "exit code 2" in line] != []
    assert scores.load_all(tmp_path / "scores") == []


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    path = scores.scores_file(tmp_path, "a")
    path.write_bytes(b"no gzip")
    with pytest.raises(Exception, match="holds no scores"):
        scores.load(path)


def test_cells_fit_between_two_stops() -> None:
    """A cell that is stopped begins anew on another machine: none may be a big loss."""
    most = {"screen": 70, "confirm": 130}  # core-minutes
    for stage in STAGES:
        for cell in load_cells(STUDY / stage):
            assert predicted_core_minutes(cell) <= most[stage], cell.name
