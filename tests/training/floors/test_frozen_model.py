"""The untuned model as a floor of ``iwlora train``, where runs are ranked by perplexity."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import iwlora
from iwlora.compare.report.floor_verdict import floor_verdict
from iwlora.results.run import RunResult
from iwlora.training.floors import frozen_model
from iwlora.training.floors.frozen_model import untuned_floors
from iwlora.training.floors.scores import TaskFloors
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.recipe import Recipe
from kinds import save_model

ROWS = 45
LONG = "the dog sees a film and the cat sleeps in the old house while it rains and it is"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Long completions, ranked by perplexity because they are long, and a run that stands still."""
    folder = tmp_path_factory.mktemp("untuned")
    rows = [{"prompt": f"who runs {k} ?", "completion": LONG + " very" * k} for k in range(ROWS)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    kind = {"name": "instruction", "max_target": 24}
    settings: dict[str, Any] = {
        "model": str(save_model(folder / "llama", "llama")),
        "task": {"train": str(file), "validation": str(file), "kind": kind},
        "method": {"name": "lora", "rank": 2},
        "train": {"max_steps": 1, "lr": 1e-12, "batch_size": 8, "max_length": 64},
    }
    settings["train"] |= {"precision": "fp32", "epochs": 1}
    return iwlora.build_recipe(settings)


@pytest.fixture(scope="module")
def loaded(recipe: Recipe) -> LoadedRecipe:
    return load(recipe)


def test_a_run_that_stands_still_has_the_score_of_its_floor(recipe: Recipe, tmp_path: Path) -> None:
    iwlora.train(recipe, tmp_path / "run")
    result = RunResult.load(tmp_path / "run" / "result.json")
    assert (result.kind or {})["metric"] == "auto"
    assert result.primary_metric == "perplexity"
    (floor,) = result.floors
    assert (floor.name, floor.rows) == ("untuned model", ROWS)
    assert floor.metrics["perplexity"] == pytest.approx(result.metrics["perplexity"], rel=1e-4)
    assert "learned nothing" in floor_verdict("perplexity", result.floors)
    with (tmp_path / "run/predictions/validation.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-3:] == ["prediction", "perplexity", "tokens"]
    # Versions before did not store these columns.
    floors, _ = untuned_floors(load(recipe))
    assert floors
    assert floors.beside(rows) == result.floors
    assert floors.beside([{"label": row["label"], "prediction": ""} for row in rows]) == []


def test_few_enough_rows_are_computed(
    loaded: LoadedRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(p.numel() for p in loaded.model.parameters())
    of_a_row = 2 * weights * sum(loaded.encoded["validation"]["length"][:]) / ROWS
    for fitting, computed in ((2000, ROWS), (30, 23), (22, 15)):
        monkeypatch.setattr(frozen_model, "_MOST_OPERATIONS_ELSEWHERE", (fitting + 0.5) * of_a_row)
        monkeypatch.setattr(frozen_model, "target_losses", lambda _, known, *rest: [(1.0, 2)])
        floors, notes = untuned_floors(loaded)
        assert isinstance(floors, TaskFloors)
        assert (len(floors.rows), notes) == (computed, [])
    monkeypatch.setattr(frozen_model, "_MOST_OPERATIONS_ELSEWHERE", 7.5 * of_a_row)
    floors, (note,) = untuned_floors(loaded)
    assert floors is None
    assert "left out as a floor: the model computes 7 rows of " in note
    assert "20 are needed" in note
