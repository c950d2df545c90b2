"""A comparison that really searches: its trials are comparable, and its report shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import call, execute_in_process, run_settings, write_recipe
from iwlora.results.comparison.record import Search
from iwlora.results.layout import trial_folder
from iwlora.results.run import load_run

GRID = (1e-3, 1e-2, 1e-1)


def test_trials_share_their_draw_and_choose_the_learning_rate(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    execute_in_process(monkeypatch)
    changes: dict[str, Any] = {
        "methods": [{"name": "lora", "rank": 2}],
        "seeds": [0],
        "search": {"lr": list(GRID), "seeds": [5], "widen": 0, "holdout": 0.25},
    }
    settings = run_settings(tiny_bert, reviews, **changes)
    del settings["method"]
    settings["train"] = {**settings["train"], "epochs": 1}
    recipe = write_recipe(tmp_path / "plan.yaml", settings)
    out = tmp_path / "out"
    assert call(capsys, "compare", recipe, "--out", out).code == 0

    runs = [load_run(trial_folder(out, "lora", lr, 5)) for lr in GRID]
    for field in ("data_digest", "head_digest"):
        assert len({getattr(run.result, field) for run in runs}) == 1, (
            "one draw: rows, order, start"
        )
    columns = [run.prediction_columns() for run in runs]
    assert columns[0] is not None
    labels = columns[0]["label"]
    assert [each and each["label"] for each in columns] == [labels] * 3, "the same held-out rows"

    choice = Search.load(out / "search.json").arms["lora"]
    reported = json.loads((out / "lora/seed-0/result.json").read_text())["learning_rate"]
    assert reported == choice.lr
    assert [trial.loss for trial in choice.trials] == [run.result.metrics["loss"] for run in runs]
    assert [trial.one_class for trial in choice.trials] == [run.gives_one_answer for run in runs]
    assert choice.steps == choice.max_steps == 3 * -(-72 // settings["train"]["batch_size"])
    assert f"at most {choice.max_steps} training steps" in (out / "summary.md").read_text()
    assert json.loads((out / "summary.json").read_text())["search"]["lora"]["rule"] == "loss-curve"
