"""Predictions of a finished run: those that it was scored by."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iwlora.errors import IwloraError
from iwlora.training.prediction import new_rows
from iwlora.training.prediction.new_rows import predict
from iwlora.training.run import train
from runs import logits, predictions, recipe

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def bf16_run(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run whose matrix products are rounded to bfloat16."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    train(recipe(tiny_bert, reviews, epochs=1, precision="bf16"), folder)
    return folder


def test_a_run_predicts_in_the_precision_that_it_was_scored_in(
    bf16_run: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """In float32 the probabilities would differ from the scored ones by about 1e-3."""
    output = predict(bf16_run, reviews["validation"], tmp_path / "answers.csv")
    with output.open(encoding="utf-8") as stream:
        answers = list(csv.DictReader(stream))
    scored = torch.tensor(logits(bf16_run), dtype=torch.float64).softmax(-1).numpy()
    probabilities = [
        [float(row["probability_neg"]), float(row["probability_pos"])] for row in answers
    ]
    assert np.abs(np.array(probabilities) - scored).max() < 1e-6
    assert [row["prediction"] for row in answers] == [
        row["prediction"] for row in predictions(bf16_run)
    ]


def test_the_model_is_moved_to_the_device(
    bf16_run: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu", 0)  # another name than the one that models are loaded on
    moved_to: list[Any] = []
    move = torch.nn.Module.to

    def record(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        moved_to.append(args[0] if args else None)
        return move(module, *args, **kwargs)

    monkeypatch.setattr(new_rows, "run_device", lambda: device)
    monkeypatch.setattr(torch.nn.Module, "to", record)
    predict(bf16_run, reviews["validation"], tmp_path / "answers.csv")
    assert device in moved_to


def test_all_rows_that_cannot_be_read_are_listed_beside_the_output(
    bf16_run: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n" + "fine\n" * 3 + " \n" * 30, encoding="utf-8")
    with pytest.raises(IwloraError, match=r"answers.bad-rows.csv lists all .* \(30\); no row"):
        predict(bf16_run, rows, tmp_path / "answers.csv")
    with (tmp_path / "answers.bad-rows.csv").open(encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    assert [row["row"] for row in listed] == [f"line {n}" for n in range(5, 35)]
    assert not (tmp_path / "answers.csv").exists()
