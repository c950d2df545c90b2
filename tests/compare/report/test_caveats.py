"""Caveats: runs that predict the same for every row are counted wherever scores are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from iwlora.compare.report.caveats import constant_predictions
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.results.comparison import load
from report_pages import all_texts, content_of

pytestmark = pytest.mark.quick

CONSTANT = "These runs predict the same for every row"


def save_predictions(
    folder: Path, arm: str, seed: int, predictions: Sequence[str], labels: str
) -> None:
    lines = [f"{label},{prediction}" for label, prediction in zip(labels, predictions, strict=True)]
    saved = folder / arm / f"seed-{seed}" / "predictions"
    saved.mkdir()
    (saved / "validation.csv").write_text("\n".join(["label,prediction", *lines]) + "\n")


def test_constant_predictions_are_counted_by_arm(folder: Path) -> None:
    for seed, predictions in enumerate(["aaaa", "bbbb", "abab"]):
        save_predictions(folder, "lora", seed, predictions, "abba")
        save_predictions(folder, "adalora", seed, "abba", "abba")
    save_predictions(folder, "iw-lora", 0, "bbbb", "abba")  # the others saved none
    (caveat,) = constant_predictions(load(folder))
    assert caveat.startswith(CONSTANT)
    assert caveat.endswith(": lora 2 of 3, iw-lora 1 of 1")

    content = content_of(folder)
    for text in all_texts(content).values():
        assert CONSTANT in text
    assert caveat in json.loads(summary_json(content))["remarks"]


@pytest.mark.parametrize(
    ("predictions", "labels"), [("abba", "abba"), ("aaaa", "aaaa"), ("a", "a")]
)
def test_varied_or_correct_predictions_are_not_counted(
    predictions: str, labels: str, folder: Path
) -> None:
    save_predictions(folder, "lora", 0, predictions, labels)
    assert constant_predictions(load(folder)) == []


def test_without_predictions_there_is_no_caveat(folder: Path) -> None:
    assert constant_predictions(load(folder)) == []
