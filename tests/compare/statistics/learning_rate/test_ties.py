"""Ties of a search: found if the learning rates score within its noise, and only then."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwlora.compare.report.caveats import undecided_searches
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.statistics.learning_rate.ties import tied_learning_rates
from iwlora.results.comparison import load
from report_pages import all_texts, content_of

pytestmark = pytest.mark.quick

ROWS = 200


def predictions(right: Sequence[int]) -> list[tuple[str, str]]:
    """(label, prediction) of ``ROWS`` rows, of which the rows ``right`` are correct."""
    labels = ["a"] * (ROWS - 1) + ["b"]
    wrong = {"a": "b", "b": "a"}
    return [
        (label, label if row in set(right) else wrong[label]) for row, label in enumerate(labels)
    ]


def save_search(
    folder: Path, chosen: float, right: Mapping[tuple[float, int], Sequence[int]], **changes: Any
) -> None:
    """Save a search of lora whose trials (rate, seed) predict these rows correctly."""
    trials = []
    for (lr, seed), rows in right.items():
        saved = folder / "lora" / "search" / f"lr-{lr:g}" / f"seed-{seed}" / "predictions"
        saved.mkdir(parents=True)
        lines = [f"{label},{prediction}" for label, prediction in predictions(rows)]
        (saved / "validation.csv").write_text("\n".join(["label,prediction", *lines]) + "\n")
        trial = {"lr": lr, "seed": seed, "state": "done", "score": len(rows) / ROWS, "seconds": 1.0}
        trials.append(trial | changes.get(f"{lr:g}", {}))
    choice = {"lr": chosen, "inside": True, "remark": None, "metric": "accuracy", "trials": trials}
    (folder / "search.json").write_text(json.dumps({"lora": choice}))


@pytest.mark.parametrize(("lost", "won"), [(12, 10), (30, 10), (7, 4), (9, 4), (14, 4)])
def test_with_one_seed_the_rows_decide_the_ties(lost: int, won: int, folder: Path) -> None:
    """The oracle is the paired standard error of a mean of 0s, 1s and -1s in closed form."""
    other = [*range(lost, 150), *range(150, 150 + won)]
    save_search(folder, 1e-3, {(1e-3, 7): range(150), (1e-2, 7): other})
    d = np.array([1] * lost + [-1] * won + [0] * (ROWS - lost - won))
    tied = d.mean() <= d.std() / math.sqrt(ROWS)
    assert tied_learning_rates(load(folder), "lora") == [1e-2] * int(tied)


def test_seeds_that_agree_separate_the_rates(folder: Path) -> None:
    alike = {(1e-3, 7): range(150), (1e-3, 8): range(150)}
    steady = {(1e-2, 7): range(138), (1e-2, 8): range(138)}
    save_search(folder, 1e-3, alike | steady)
    assert undecided_searches(load(folder)) == []


def test_two_seeds_that_disagree_count_as_two(folder: Path) -> None:
    """Differences of 20 and -2 rows: mean 9, √(s² / 2) = 11 with s over n - 1, 7.8 over n."""
    alike = {(1e-3, 7): range(150), (1e-3, 8): range(150)}
    torn = {(1e-2, 7): range(130), (1e-2, 8): range(152)}
    save_search(folder, 1e-3, alike | torn)
    assert tied_learning_rates(load(folder), "lora") == [1e-2]


def test_ties_are_a_caveat_in_every_format(folder: Path) -> None:
    right = {(1e-4, 7): range(4, 153), (1e-3, 7): range(150), (1e-2, 7): range(149)}
    right |= {(3e-2, 7): range(90)}
    save_search(folder, 1e-3, right)
    (caveat,) = undecided_searches(load(folder))
    assert ": lora 0.0001 and 0.01 (chosen 0.001). " in caveat
    content = content_of(folder)
    for text in all_texts(content).values():
        assert caveat in text
    assert caveat in json.loads(summary_json(content))["remarks"]


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_a_rate_with_a_failed_trial_is_no_tie(state: str, folder: Path) -> None:
    right = {(1e-3, 7): range(150), (1e-3, 8): range(150)}
    right |= {(1e-2, 7): range(150), (1e-2, 8): range(150)}
    save_search(folder, 1e-3, right)
    assert tied_learning_rates(load(folder), "lora") == [1e-2]
    path = folder / "search.json"
    stored = json.loads(path.read_text())
    stored["lora"]["trials"][-1] |= {"state": state, "score": None}
    path.write_text(json.dumps(stored))
    assert tied_learning_rates(load(folder), "lora") == []


def test_without_predictions_there_are_no_ties(folder: Path) -> None:
    save_search(folder, 1e-3, {(1e-3, 7): range(150), (1e-2, 7): range(150)})
    for path in (folder / "lora" / "search").rglob("*.csv"):
        path.unlink()
    assert undecided_searches(load(folder)) == []


def test_predictions_that_do_not_reproduce_the_scores_are_not_used(folder: Path) -> None:
    changes = {"0.01": {"score": 0.74}}
    save_search(folder, 1e-3, {(1e-3, 7): range(150), (1e-2, 7): range(150)}, **changes)
    assert undecided_searches(load(folder)) == []


def test_a_choice_without_its_trials_is_no_error(folder: Path) -> None:
    save_search(folder, 5e-3, {(1e-3, 7): range(150), (1e-2, 7): range(150)})
    assert undecided_searches(load(folder)) == []
