"""Study rows: the same for every seed and arm, never trained on, never called official."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from iwlora import build_recipe, tasks, train
from iwlora.errors import IwloraError
from iwlora.results.layout import predictions_file
from iwlora.tasks.spec import TaskSpec

pytestmark = pytest.mark.quick


def load(seed: int = 0, **fields: Any) -> tasks.Task:
    return tasks.load(TaskSpec(name="builtin/entailment", **fields), seed)


def pairs(task: tasks.Task, split: str) -> list[tuple[str, str]]:
    rows = task.splits[split]
    return list(zip(rows["premise"], rows["hypothesis"], strict=True))


def test_study_rows_are_reserved_first_and_are_the_same_for_every_draw() -> None:
    first = load(max_train=300, score_rows=500)
    assert first.reported == ("study", "test")
    assert len(first.splits["study"]) == 500
    assert len(first.splits["train"]) == 300
    official = load(max_train=300)
    assert pairs(first, "test") == pairs(official, "test"), "the official split stays whole"
    others = [load(1, max_train=300, score_rows=500), load(2, max_train=900, score_rows=500)]
    for task in (first, *others):
        assert pairs(task, "study") == pairs(first, "study")
        assert not set(pairs(task, "study")) & set(pairs(task, "train"))
        assert not set(pairs(task, "study")) & set(pairs(task, "test"))
    assert set(pairs(first, "train")) != set(pairs(others[0], "train"))


def test_each_class_has_its_share() -> None:
    task, whole = load(score_rows=1000), load()
    counts, all_counts = (
        Counter(t.splits[s]["label"]) for t, s in ((task, "study"), (whole, "train"))
    )
    rows = len(whole.splits["train"])
    for label, count in all_counts.items():
        assert counts[label] == pytest.approx(1000 * count / rows, abs=1)


def test_all_leaves_one_and_a_half_draws() -> None:
    pool = len(load().splits["train"])
    task = load(max_train=1000, score_rows="all")
    assert len(task.splits["study"]) == pytest.approx(pool - 1500, abs=2)
    assert not any("share most of their" in note for note in task.notes)
    larger = load(max_train=100, draw_rows=1000, score_rows="all")
    assert pairs(larger, "study") == pairs(task, "study"), "rows that the largest draw leaves"


def test_draws_that_share_their_rows_are_named() -> None:
    pool = len(load().splits["train"])
    task = load(max_train=1000, score_rows=pool - 1200)
    (note,) = (note for note in task.notes if "official score" in note)
    assert note.startswith("study: ")
    assert "so they share most of their training rows" in note


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score_rows": "all"}, "task.score_rows=all needs task.max_train"),
        ({"score_rows": 10**6, "max_train": 100}, "100 are needed to train"),
        ({"score_rows": "all", "max_train": 10**6}, "0 at most can be scored"),
    ],
)
def test_rows_that_are_not_there_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(IwloraError, match=message):
        load(**fields)


def test_rows_with_equal_texts_stay_together(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"text {i % 50},{'ab'[i % 2]}" for i in range(200)]
    file.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    spec = TaskSpec(train=str(file), validation=str(file), score_rows=40)
    task = tasks.load(spec, 0)
    study, train = (set(task.splits[name]["text"]) for name in ("study", "train"))
    assert study
    assert not study & train


def test_a_run_is_scored_on_both_and_says_which_comes_first(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    settings = {
        "model": str(tiny_bert),
        "task": {**reviews, "max_train": 32, "score_rows": 40},
        "method": "head",
        "train": {"epochs": 1, "max_length": 16},
    }
    result = train(build_recipe(settings), tmp_path / "run")
    assert result["evaluated_on"] == "study"
    assert {"accuracy", "accuracy_validation"} <= set(result["metrics"])
    for split, name in (("study", "accuracy"), ("validation", "accuracy_validation")):
        with predictions_file(tmp_path / "run", split).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        right = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
        assert result["metrics"][name] == pytest.approx(right)
        assert abs(len(rows) - {"study": 40, "validation": 32}[split]) <= 2
    assert any("not the official score" in note for note in result["notes"])
