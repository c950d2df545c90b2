"""A search whose rates lie within its noise says so, and one that can tell them apart does not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwlora.compare.report.html import write_report
from iwlora.compare.statistics.learning_rate_ties import close_rates, undecided
from iwlora.results.loading import load

ROWS = 200
CHANCE = "within one standard error"


def answers(right: Sequence[int]) -> list[tuple[str, str]]:
    """(label, prediction) of ``ROWS`` rows, all of one label, but for the last; these right."""
    label = ["a"] * (ROWS - 1) + ["b"]
    return [(one, one if n in set(right) else "ba"[one == "b"]) for n, one in enumerate(label)]


def searched(
    folder: Path, chosen: float, right: Mapping[tuple[float, int], Sequence[int]], **changes: Any
) -> None:
    """Leave lora's search behind, whose trials (rate, seed) got these rows right."""
    trials = []
    for (lr, seed), rows in right.items():
        place = folder / "lora" / "search" / f"lr-{lr:g}" / f"seed-{seed}" / "predictions"
        place.mkdir(parents=True)
        lines = [f"{label},{prediction}" for label, prediction in answers(rows)]
        (place / "validation.csv").write_text("\n".join(["label,prediction", *lines]) + "\n")
        trial = {"lr": lr, "seed": seed, "state": "done", "score": len(rows) / ROWS, "seconds": 1.0}
        trials.append(trial | changes.get(f"{lr:g}", {}))
    choice = {"lr": chosen, "inside": True, "remark": None, "metric": "accuracy", "trials": trials}
    (folder / "search.json").write_text(json.dumps({"lora": choice}))


@pytest.mark.parametrize(("lost", "won"), [(12, 10), (30, 10), (7, 4), (9, 4), (14, 4)])
def test_with_one_seed_the_rows_decide_what_is_close(lost: int, won: int, folder: Path) -> None:
    """The oracle is the paired standard error of a mean of 0s, 1s and -1s in closed form."""
    other = [*range(lost, 150), *range(150, 150 + won)]
    searched(folder, 1e-3, {(1e-3, 7): range(150), (1e-2, 7): other})
    d = np.array([1] * lost + [-1] * won + [0] * (ROWS - lost - won))
    close = d.mean() <= d.std() / math.sqrt(ROWS)
    assert close_rates(load(folder), "lora") == [1e-2] * int(close)


def test_seeds_that_agree_tell_rates_apart(folder: Path) -> None:
    alike = {(1e-3, 7): range(150), (1e-3, 8): range(150)}
    steady = {(1e-2, 7): range(138), (1e-2, 8): range(138)}
    searched(folder, 1e-3, alike | steady)
    assert undecided(load(folder)) == []


def test_two_seeds_that_disagree_count_as_two_and_not_as_many(folder: Path) -> None:
    """Differences of 20 and -2 rows: mean 9, √(s² / 2) = 11 with s over n - 1, 7.8 over n."""
    alike = {(1e-3, 7): range(150), (1e-3, 8): range(150)}
    torn = {(1e-2, 7): range(130), (1e-2, 8): range(152)}
    searched(folder, 1e-3, alike | torn)
    assert close_rates(load(folder), "lora") == [1e-2]


def test_the_reader_is_told_wherever_the_search_is_shown(folder: Path) -> None:
    right = {(1e-4, 7): range(4, 153), (1e-3, 7): range(150), (1e-2, 7): range(149)}
    right |= {(3e-2, 7): range(90)}
    searched(folder, 1e-3, right)
    (told,) = undecided(load(folder))
    assert ": lora 0.0001 and 0.01 (chosen 0.001). " in told
    write_report(folder)
    for name in ("summary.md", "report.html"):
        assert CHANCE in (folder / name).read_text(encoding="utf-8")
    assert told in json.loads((folder / "summary.json").read_text())["remarks"]


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_a_rate_that_failed_is_not_close(state: str, folder: Path) -> None:
    right = {(1e-3, 7): range(150), (1e-3, 8): range(150)}
    right |= {(1e-2, 7): range(150), (1e-2, 8): range(150)}
    searched(folder, 1e-3, right)
    assert close_rates(load(folder), "lora") == [1e-2]
    path = folder / "search.json"
    stored = json.loads(path.read_text())
    stored["lora"]["trials"][-1] |= {"state": state, "score": None}
    path.write_text(json.dumps(stored))
    assert close_rates(load(folder), "lora") == []


def test_without_what_was_predicted_nothing_is_said(folder: Path) -> None:
    searched(folder, 1e-3, {(1e-3, 7): range(150), (1e-2, 7): range(150)})
    for place in (folder / "lora" / "search").rglob("*.csv"):
        place.unlink()
    assert undecided(load(folder)) == []


def test_predictions_that_do_not_give_the_scores_are_not_used(folder: Path) -> None:
    changes = {"0.01": {"score": 0.74}}
    searched(folder, 1e-3, {(1e-3, 7): range(150), (1e-2, 7): range(150)}, **changes)
    assert undecided(load(folder)) == []


def test_a_choice_without_its_trials_is_no_error(folder: Path) -> None:
    searched(folder, 5e-3, {(1e-3, 7): range(150), (1e-2, 7): range(150)})
    assert undecided(load(folder)) == []
