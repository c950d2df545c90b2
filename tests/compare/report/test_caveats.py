"""Scores at the floor of their task are pointed out wherever scores are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from iwlora.compare.report.caveats import unlearned
from iwlora.compare.report.html import write_report
from iwlora.results.loading import load

FLOOR = "Runs that give every row the same answer"


def answered(folder: Path, label: str, seed: int, answers: Sequence[str], labels: str) -> None:
    """Keep these predictions for a run."""
    lines = [f"{truth},{answer}" for truth, answer in zip(labels, answers, strict=True)]
    place = folder / label / f"seed-{seed}" / "predictions"
    place.mkdir()
    (place / "validation.csv").write_text("\n".join(["label,prediction", *lines]) + "\n")


def test_runs_that_give_one_answer_are_counted_by_arm(folder: Path) -> None:
    for seed, answers in enumerate(["aaaa", "bbbb", "abab"]):
        answered(folder, "lora", seed, answers, "abba")
        answered(folder, "adalora", seed, "abba", "abba")
    answered(folder, "iw-lora", 0, "bbbb", "abba")  # the others kept none
    (told,) = unlearned(load(folder))
    assert told.startswith(FLOOR)
    assert told.endswith(": lora 2 of 3, iw-lora 1 of 1")

    write_report(folder)
    for name in ("summary.md", "report.html"):
        assert FLOOR in (folder / name).read_text(encoding="utf-8")
    assert told in json.loads((folder / "summary.json").read_text())["remarks"]


@pytest.mark.parametrize(("answers", "labels"), [("abba", "abba"), ("aaaa", "aaaa"), ("a", "a")])
def test_an_answer_that_differs_or_is_the_only_right_one_is_none(
    answers: str, labels: str, folder: Path
) -> None:
    answered(folder, "lora", 0, answers, labels)
    assert unlearned(load(folder)) == []


def test_without_predictions_nothing_is_said(folder: Path) -> None:
    assert unlearned(load(folder)) == []
