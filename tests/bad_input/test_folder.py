"""The folder that a run is to be written to: another one’s is never touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from commands import Command, snapshot, write_recipe


def test_a_run_folder_of_another_recipe(recipe: Path, damaged: Path, refused: Command) -> None:
    before = snapshot(damaged)
    outcome = refused("train", recipe, "--out", damaged)
    assert "belongs to another recipe" in outcome.err
    assert "choose another folder" in outcome.err
    assert snapshot(damaged) == before


@pytest.mark.parametrize("state", ["running", None, "broken"])
def test_an_unfinished_run_of_another_recipe(
    recipe: Path, damaged: Path, refused: Command, state: str | None
) -> None:
    for path in damaged.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in ("recipe.yaml", "environment.json"):
            path.unlink()
    if state:
        text = "{" if state == "broken" else json.dumps({"state": state})
        (damaged / "status.json").write_text(text)
    before = snapshot(damaged)
    assert "belongs to another recipe" in refused("train", recipe, "--out", damaged).err
    assert snapshot(damaged) == before


def test_a_failed_run_with_something_to_show_is_kept(
    recipe: Path, damaged: Path, refused: Command
) -> None:
    (damaged / "result.json").unlink()
    (damaged / "status.json").write_text('{"state": "failed"}')
    before = snapshot(damaged)
    assert "belongs to another recipe" in refused("train", recipe, "--out", damaged).err
    assert snapshot(damaged) == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("command", ["train", "compare"])
def test_an_out_that_cannot_be_a_folder(
    settings: dict[str, Any], tmp_path: Path, refused: Command, command: str
) -> None:
    if command == "compare":
        settings = {**settings, "methods": ["full"]}
        del settings["method"]
    recipe = write_recipe(tmp_path / "recipe.yaml", settings)
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("mine")
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    if command == "train":
        assert "is a file; give a folder" in refused(command, recipe, "--out", file).err
        assert "holds no run" in refused(command, recipe, "--out", other).err
    assert "cannot write" in refused(command, recipe, "--out", file / "below").err
    assert file.read_text() == "mine"
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("untouched")
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_out_without_permission(recipe: Path, tmp_path: Path, refused: Command) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "cannot write" in refused("train", recipe, "--out", locked / "run").err
