"""A comparison does not reuse runs whose inputs changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from iwlora import IwloraError
from iwlora.compare.execute.scheduling import input_check
from iwlora.compare.execute.scheduling.input_check import InputCheck
from iwlora.compare.plan.planned_runs import PlannedRun
from iwlora.results.run import RunResult
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from runs import recipe

Finished = tuple[Recipe, Path, RunResult, Path]


@pytest.fixture(scope="module")
def finished(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """A recipe, its run, the result, and the scored file."""
    folder = tmp_path_factory.mktemp("input-check")
    data = Path(shutil.copytree(Path(reviews["train"]).parent, folder / "data"))
    files = {split: str(data / f"{split}.csv") for split in ("train", "validation")}
    asked = recipe(tiny_bert, {**reviews, **files}, max_steps=2)
    train(asked, folder / "run")
    result = RunResult.load(folder / "run" / "result.json")
    return asked, folder / "run", result, data / "validation.csv"


@pytest.mark.quick
def test_a_run_of_other_labels_is_refused(finished: Finished) -> None:
    asked, folder, result, scored = finished
    text = scored.read_text()
    for lr in (asked.train.lr, 0.5):  # another learning rate of a search has the same inputs
        planned = PlannedRun("lora", 0, asked.with_train(lr=lr))
        InputCheck().check(planned, folder, result)
        scored.write_text(text.replace("pos", "POS").replace("neg", "pos").replace("POS", "neg"))
        expected = r"finished, and its inputs changed .*: the labels of 32 rows of validation\.csv"
        with pytest.raises(IwloraError, match=expected):
            InputCheck().check(planned, folder, result)
        scored.write_text(text)


def test_data_are_read_once_and_old_runs_are_named_once(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, folder, result, _ = finished
    loaded: list[Any] = []
    load = input_check.tasks.load
    monkeypatch.setattr(
        input_check.tasks, "load", lambda *spec: (loaded.append(spec), load(*spec))[1]
    )
    check, planned = InputCheck(), PlannedRun("lora", 0, asked)
    old = result.model_copy(update={"fingerprint": None})
    for _ in range(2):
        check.check(planned, folder, old)
    assert (len(loaded), caplog.text.count("cannot be verified")) == (0, 1)
    for _ in range(2):
        check.check(planned, folder, result)
    assert len(loaded) == 1


def test_the_result_that_is_checked_is_the_stored_one(finished: Finished, tmp_path: Path) -> None:
    """A metric that was edited is refused before any report."""
    stored = json.loads((finished[1] / "result.json").read_text())
    stored["metrics"]["accuracy"] = 1.25
    (tmp_path / "result.json").write_text(json.dumps(stored))
    with pytest.raises(IwloraError, match=r"result\.json is damaged: its content is not"):
        RunResult.load(tmp_path / "result.json")
