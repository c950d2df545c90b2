"""Caveats: runs that predict the same for every row are counted wherever scores are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from iwlora.compare.report.caveats import (
    caveats,
    constant_predictions,
    describe_scoring,
    uncertain_importance,
    unequal_lengths,
)
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.results import layout
from iwlora.results.comparison import load
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
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


def test_a_line_separator_in_a_label_does_not_end_the_row(folder: Path) -> None:
    save_predictions(folder, "lora", 0, ["a\u2028b", "c"], "ab")
    saved = load(folder).of("lora")[0].predictions()
    assert saved == (["a", "b"], ["a\u2028b", "c"])


def test_a_long_text_among_the_predictions_is_read(folder: Path) -> None:
    long = "x" * 150_000  # Python's own limit for a field is 131,072
    save_predictions(folder, "lora", 0, [long, "c"], "ab")
    assert load(folder).of("lora")[0].predictions() == (["a", "b"], [long, "c"])


def test_a_measurement_above_its_tolerance_is_named(folder: Path) -> None:
    """In an older version the file does not hold the tolerance; 0 means that all are measured."""
    site = SiteSensitivity("0.query", "query", 0, 4, 4, value=1.0, stderr=0.1)

    def caveats_with(tolerance: float | None) -> list[str]:
        for seed, converged in enumerate((False, True)):
            measured = Sensitivity((site,), "exact", 8, 0.07, converged, 1.0, tolerance=tolerance)
            measured.save(folder / "iw-lora" / f"seed-{seed}" / layout.SENSITIVITY)
        return uncertain_importance(load(folder))

    assert caveats_with(0) == []
    sentence = (
        "iw-lora: 1 of 3 measurements of the importance ended before they reached their tolerance{}"
        "; about 0.07 (share_error) of the importance is expected to be on the wrong matrices. "
        "Raise method.max_batches"
    )
    assert caveats_with(None) == [sentence.format("")]
    (caveat,) = caveats_with(0.02)
    assert caveat == sentence.format(" of 0.02")
    assert all(caveat.partition(":")[2] in text for text in all_texts(content_of(folder)).values())


@pytest.mark.quick
def test_runs_of_different_lengths_are_pointed_out(folder: Path) -> None:
    """Early stopping gives the arms, and the seeds of an arm, different numbers of epochs."""
    comparison = load(folder)
    assert unequal_lengths(comparison) == []
    first = comparison.runs[0]
    planned = first.result.epochs
    assert planned
    object.__setattr__(first.result, "epochs", planned / 2)
    (caveat,) = unequal_lengths(comparison)
    runs = len(comparison.of(first.result.label))
    mean = planned * (runs - 0.5) / runs
    assert f"{first.result.label} {mean:.3g}" in caveat


def test_rows_that_are_not_scored_are_named_once(folder: Path) -> None:
    """Beside the score, and among the caveats."""
    note = "validation: 2 of 9 rows cannot be used and are not scored (task.on_bad=skip)"
    comparison = load(folder)
    assert "cannot be used" not in describe_scoring(comparison)
    changes = {"left_out_rows": {"train": 5, "validation": 2}, "notes": [note]}
    runs = [replace(r, result=r.result.model_copy(update=changes)) for r in comparison.runs]
    lossy = replace(comparison, runs=runs)
    assert "on validation without 2 of its rows, which cannot be used, with" in describe_scoring(
        lossy
    )
    assert caveats(lossy).count(note) == 1
