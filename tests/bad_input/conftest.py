"""A short run to spoil, and commands that must refuse."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import Command, Outcome, call, check_plain, run_settings, write_recipe
from iwlora.training.recipe import build
from iwlora.training.run import train


@pytest.fixture(scope="module")
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    return run_settings(tiny_bert, reviews)


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of IW-LoRA; tests that damage it take a copy."""
    folder = tmp_path_factory.mktemp("bad-input") / "run"
    train(
        build({**settings, "method": {"name": "iw-lora", "rank": 2, "measure": "before"}}), folder
    )
    return folder


@pytest.fixture
def damaged(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "damaged"))


@pytest.fixture
def recipe(settings: dict[str, Any], tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", settings)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command that must refuse: every line of its message is an error, in plain words."""

    def run(*arguments: object) -> Outcome:
        outcome = call(capsys, *arguments)
        assert outcome.code == 2, outcome
        check_plain(outcome)
        return outcome

    return run


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake must be found before anything is measured or trained."""

    def work(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("work began before the mistake was found")

    monkeypatch.setattr("iwlora.training.measure_recipe.measure", work)
    monkeypatch.setattr("iwlora.training.loop.trainer.FineTuningTrainer.train", work)
