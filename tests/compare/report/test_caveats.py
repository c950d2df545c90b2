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
    marked_trials,
    uncertain_importance,
    undecided_searches,
    unequal_lengths,
)
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.tables.learning_rates import learning_rate_table
from iwlora.results import layout
from iwlora.results.comparison import load
from iwlora.results.comparison.record import LearningRateChoice, Search, Trial
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
    saved = load(folder).of("lora")[0].predictions
    assert saved == (["a", "b"], ["a\u2028b", "c"])


def test_a_long_text_among_the_predictions_is_read(folder: Path) -> None:
    long = "x" * 150_000  # Python's own limit for a field is 131,072
    save_predictions(folder, "lora", 0, [long, "c"], "ab")
    assert load(folder).of("lora")[0].predictions == (["a", "b"], [long, "c"])


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
        "Take method.measure=before, or raise method.max_batches"
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


def save_search(folder: Path, **changes: object) -> None:
    """A search of two draws: 1e-2 answered with one class, 1e-4 was dropped, 3e-2 diverged."""
    done = {"state": "done", "score": 0.75, "loss": 0.5, "seconds": 2.0, "steps": 10}
    trials = [
        {**done, "lr": 1e-4, "seed": 7, "loss": 0.9},
        {**done, "lr": 1e-3, "seed": 7},
        {**done, "lr": 1e-2, "seed": 7, "one_class": True},
        {"lr": 3e-2, "seed": 7, "state": "diverged", "steps": 10},
        {**done, "lr": 1e-3, "seed": 8, "loss": 0.4},
    ]
    known = {"lr": 9e-4, "low": 5e-4, "high": 2e-3, "inside": True, "remark": None}
    known |= {"metric": "accuracy", "rule": "loss-curve", "added": [3e-2], "max_steps": 120}
    fields = {**known, "trials": [Trial.model_validate(trial) for trial in trials], **changes}
    Search(arms={"lora": LearningRateChoice.model_validate(fields)}).save(folder / layout.SEARCH)


def test_the_search_is_shown_with_its_interval_its_steps_and_its_marks(folder: Path) -> None:
    save_search(folder)
    comparison = load(folder)
    table = learning_rate_table(comparison)
    (row,) = table.rows
    assert dict(zip(table.head, row, strict=True)) == {
        "arm": "lora",
        "learning rate": "0.0009",
        "95% interval": "0.0005 to 0.002",
        "optimum": "inside the grid",
        "trials": "4 of 5",
        "training steps": "50",
        "time": "8.0 s",
        "loss, accuracy (draws) on held-out training rows": (
            "0.0001: 0.900, 75.00 (1); 0.001: 0.450, 75.00 (2); "
            "0.01: 0.500, 75.00 (1), one answer; 0.03: diverged, added"
        ),
    }
    assert "may take at most 120 training steps" in table.caption
    (marks,) = marked_trials(comparison)
    assert marks.endswith("lora 1 gave all rows the same answer (0.01); lora 1 diverged (0.03)")
    assert undecided_searches(comparison) == [], "one tried learning rate is in the interval"
    assert marks in json.loads(summary_json(content_of(folder)))["remarks"]


def test_a_wide_interval_of_a_search_is_a_caveat(folder: Path) -> None:
    save_search(folder, low=1e-4, high=9e-3)
    (caveat,) = undecided_searches(load(folder))
    assert "95% interval of the best one: lora 0.0001 to 0.009 (chosen 0.0009). " in caveat


def test_a_search_of_an_older_version_shows_what_it_stored(folder: Path) -> None:
    trials = [Trial(lr=lr, seed=7, state="done", score=0.5) for lr in (1e-4, 1e-3)]
    save_search(folder, rule="best-score", low=None, high=None, max_steps=None, trials=trials)
    table = learning_rate_table(load(folder))
    assert "Every arm gets equally many trials" in table.caption
    assert {"95% interval", "training steps"}.isdisjoint(table.head)
