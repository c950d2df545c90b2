"""One recipe and one finished run for the tests of all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import run_settings, write_recipe
from iwlora.training.recipe import build
from iwlora.training.run import train


@pytest.fixture(scope="session")
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    return run_settings(tiny_bert, reviews)


@pytest.fixture(scope="session")
def recipe(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("cli") / "recipe.yaml", settings)


@pytest.fixture(scope="session")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    train(build(settings), folder)
    return folder
