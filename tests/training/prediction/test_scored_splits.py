"""The predictions that a run leaves of the rows that it was scored on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from commands import call
from iwlora.training.run import train
from runs import predictions, recipe

pytestmark = pytest.mark.quick


def test_they_have_the_texts_also_under_a_name_that_is_taken(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split in ("train", "validation"):
        text = Path(reviews[split]).read_text()
        (tmp_path / f"{split}.csv").write_text(text.replace("text", "prediction", 1))
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation")}
    task = {**files, "text": "prediction", "label": "mood"}
    train(recipe(tiny_bert, task, epochs=0.2), tmp_path / "run")
    with Path(reviews["validation"]).open(newline="") as stream:
        given = [(row["text"].strip(), row["mood"]) for row in csv.DictReader(stream)]
    rows = predictions(tmp_path / "run")
    assert [*rows[0]][:4] == ["row", "line", "text_prediction", "label"]
    assert [(row["text_prediction"], row["label"]) for row in rows] == given
    assert {row["prediction"] for row in rows} <= {"pos", "neg"}
    outcome = call(capsys, "verify", tmp_path / "run")
    assert "intact   metrics of predictions/validation.csv" in outcome.out


def test_they_have_the_file_and_the_line_of_each_row(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    mix = [{"train": reviews["validation"]}]
    task = {"train": reviews["train"], "mix": mix, "text": "text", "label": "mood"}
    train(recipe(tiny_bert, task, epochs=0.2), tmp_path / "run")
    rows = predictions(tmp_path / "run")
    assert [*rows[0]][:3] == ["row", "file", "line"]
    for row in rows:
        line = Path(row["file"]).read_text().split("\n")[int(row["line"]) - 1]
        assert row["text"] in line
        assert line.endswith(row["label"])
    assert {row["file"] for row in rows} == {reviews["train"], reviews["validation"]}
