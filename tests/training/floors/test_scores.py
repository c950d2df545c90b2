"""The floors of each kind of task, by hand, and the margins of planted runs above them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwlora import tasks
from iwlora.compare.report.floor_verdict import floor_verdict
from iwlora.results.run import FloorScore
from iwlora.tasks import Task
from iwlora.training.floors.scores import TaskFloors
from iwlora.training.recipe import build

Rows = list[dict[str, Any]]


def load(folder: Path, train: Rows, scored: Rows, kind: str, **options: Any) -> Task:
    files = {}
    for split, rows in (("train", train), ("validation", scored)):
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task = {**files, "kind": {"name": kind, **options}}
    return tasks.load(build({"model": "m", "task": task, "method": "lora"}).task, 0)


def beside(task: Task, predicted: list[Any]) -> list[FloorScore]:
    """The floors beside a run that predicted this, as its file of predictions has it."""
    (split,) = task.reported
    labels = [task.kind.readable_label(task, label) for label in task.splits[split]["label"][:]]
    rows = [
        {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in (("label", label), ("prediction", prediction))
        }
        for label, prediction in zip(labels, predicted, strict=True)
    ]
    return TaskFloors.of(task).beside(rows)


def by_name(floors: list[FloorScore]) -> dict[str, FloorScore]:
    return {floor.name: floor for floor in floors}


def opinions(count: int, start: int = 0) -> Rows:
    """Three of four are good; a word says which."""
    rows = range(start, start + count)
    return [
        {
            "text": f"film {n} is {'dull' if n % 4 == 0 else 'fine'}",
            "label": "no yes yes yes".split()[n % 4],
        }
        for n in rows
    ]


@pytest.fixture
def reviewed(tmp_path: Path) -> Task:
    return load(tmp_path, opinions(80), opinions(40, start=80), "classification")


def test_classification(reviewed: Task) -> None:
    floors = by_name(beside(reviewed, ["yes"] * 40))
    most, words = floors["most frequent class"], floors["bag of words"]
    assert most.metrics == {"accuracy": 0.75, "macro_f1": pytest.approx(0.75 / 1.75)}
    assert words.metrics == {"accuracy": 1.0, "macro_f1": 1.0}
    assert (most.trivial, words.trivial) == (True, False)
    assert (most.margin, words.margin) == (0.0, -0.25)
    assert most.rows == 40


def test_a_run_that_learned_nothing_is_told_so_and_a_better_one_gets_its_margin(
    tmp_path: Path,
) -> None:
    """Without a word that tells, the bag of words is no better than the class."""
    rows = [{"text": f"film {n}", "label": row["label"]} for n, row in enumerate(opinions(120))]
    task = load(tmp_path, rows[:80], rows[80:], "classification")
    labels = [row["label"] for row in rows[80:]]
    nothing, right = beside(task, ["yes"] * 40), beside(task, labels)
    assert floor_verdict("accuracy", nothing).startswith(
        "learned nothing: not above the most frequent class (0.0 points"
    )
    assert by_name(right)["most frequent class"].margin == 0.25
    assert floor_verdict("accuracy", right).startswith("beats the ")
    worse = ["no" if label == "yes" else "yes" for label in labels]
    assert "learned nothing" in floor_verdict("accuracy", beside(task, worse))


def test_a_score_has_an_interval_over_rows(tmp_path: Path) -> None:
    """With one row in a group: t(G - 1) times the standard error of the mean."""
    task = load(tmp_path, opinions(80), opinions(20, start=80), "classification")
    labels = [row["label"] for row in opinions(20, start=80)]
    right = np.arange(20) % 5 > 0
    other = {"yes": "no", "no": "yes"}
    stored = [
        {"label": label, "prediction": label if is_right else other[label]}
        for label, is_right in zip(labels, right, strict=True)
    ]
    half = TaskFloors.of(task).half_width(stored)
    assert half == pytest.approx(2.093 * right.std(ddof=1) / 20**0.5, rel=1e-3)
    perfect = [{"label": label, "prediction": label} for label in labels]
    assert TaskFloors.of(task).half_width(perfect) is None
    assert TaskFloors.of(task).half_width(stored[:1] * 20) is None


def test_a_run_below_the_bag_of_words_is_told_so(reviewed: Task) -> None:
    labels = [row["label"] for row in opinions(40, start=80)]
    missed = [label if n % 20 else "yes" for n, label in enumerate(labels)]
    half = ["yes" if label == "no" and n % 8 else label for n, label in enumerate(labels)]
    assert "beat the bag of words" in floor_verdict("accuracy", beside(reviewed, missed))
    assert floor_verdict("accuracy", beside(reviewed, half)).startswith(
        ("is below the bag of words", "is not shown to learn: above the")
    )


def test_f1_of_a_rare_class_has_that_class_as_its_floor(reviewed: Task) -> None:
    rare = replace(reviewed, metrics=("f1",), positive=reviewed.labels.index("no"))
    floor = beside(rare, ["yes"] * 40)[0]
    assert floor.name == "positive class for every row"
    assert floor.metrics == {"f1": pytest.approx(2 * 10 / (10 + 40))}


def test_multi_label(tmp_path: Path) -> None:
    rows = [
        {"text": f"a {'cat' if n % 2 else 'dog'}", "label": ["pet", *(["cat"] if n % 2 else [])]}
        for n in range(60)
    ]
    task = load(tmp_path, rows[:40], rows[40:], "multi-label")
    floors = by_name(beside(task, [["pet"]] * 20))
    # Both classes: 2·30 / (2·20 + 30); only the commonest: 2·20 / (20 + 30).
    assert floors["most frequent classes"].metrics["micro_f1"] == pytest.approx(60 / 70)
    assert floors["most frequent classes"].margin == pytest.approx(40 / 50 - 60 / 70)
    assert floors["bag of words"].metrics["micro_f1"] == 1.0


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        ("rmse", "mean of the training targets", 2.0),
        ("mae", "median of the training targets", 1.0),
        ("pearson", "mean of the training targets", 0.0),
    ],
)
def test_regression(tmp_path: Path, metric: str, name: str, value: float) -> None:
    targets = (1.0, -1.0) if metric == "mae" else (3.0, -1.0)
    train = [{"text": f"text {n}", "label": 4.0 if n % 4 == 0 else 0.0} for n in range(40)]
    scored = [{"text": f"text {n}", "label": targets[n % 2]} for n in range(20)]
    task = load(tmp_path, train, scored, "regression", metric=metric)
    labels = [row["label"] for row in scored]
    floor = by_name(beside(task, labels))[name]
    assert floor.metrics[metric] == pytest.approx(value)
    assert floor.margin == pytest.approx(1.0 if metric == "pearson" else value)
    assert floor.low == pytest.approx(floor.margin)
    assert floor.trivial


def test_token_labels(tmp_path: Path) -> None:
    train = [{"text": ["Ada", "met", "Bob"], "label": ["B-P", "O", "B-P"]}]
    train += [{"text": ["it", "rains", "."], "label": ["O", "O", "O"]}] * 5
    scored = [{"text": ["Ada", "met", "Cyd"], "label": ["B-P", "O", "B-P"]}] * 10
    task = load(tmp_path, train, scored, "token-labels")
    floors = by_name(beside(task, [["O", "O", "O"]] * 10))
    assert floors["most frequent class"].metrics["f1"] == 0.0
    assert floors["most frequent class"].metrics["accuracy"] == pytest.approx(1 / 3)
    known = floors["most frequent class of each word"]
    assert known.metrics["f1"] == pytest.approx(2 / 3)  # one of two, and nothing wrong
    assert known.margin == pytest.approx(-2 / 3)


def test_question_answering(tmp_path: Path) -> None:
    answers = [{"text": ["Ada"], "answer_start": [0]}, {"text": [], "answer_start": []}]
    rows = [
        {"question": "who ?", "context": "Ada sleeps", "answers": answers[n % 2]} for n in range(20)
    ]
    task = load(tmp_path, rows, rows, "question-answering", no_answer=True)
    (floor,) = beside(task, ["Ada", ""] * 10)
    assert (floor.name, floor.trivial) == ("empty answer", True)
    assert floor.metrics["exact_match"] == 0.5
    assert floor.margin == 0.5


def test_summaries(tmp_path: Path) -> None:
    rows = [
        {"source": f"Ada {n} sleeps . . It rains on the hill.", "target": f"Ada {n} sleeps"}
        for n in range(20)
    ]
    task = load(tmp_path, rows, rows, "seq2seq", max_target=8)
    floors = by_name(beside(task, [row["target"] for row in rows]))
    assert floors["empty answer"].metrics["rougeL"] == 0.0
    assert floors["first sentences of the source"].metrics["rouge1"] == 1.0
    # Three of eight words are in the target of three: F = 2·3 / (3 + 8).
    assert floors["copy of the source"].metrics["rouge1"] == pytest.approx(6 / 11)
    assert floors["copy of the source"].margin == pytest.approx(1 - 6 / 11)


def test_translations_have_no_interval_of_means_but_one(tmp_path: Path) -> None:
    rows = [
        {"source": f"das ist Haus {n} hier", "target": f"this is house {n} here now"}
        for n in range(24)
    ]
    task = load(tmp_path, rows, rows, "seq2seq", metric="bleu", max_target=8)
    floors = by_name(beside(task, [row["target"] for row in rows]))
    copy = floors["copy of the source"]
    assert copy.metrics["bleu"] < 0.1
    assert copy.margin == pytest.approx(1 - copy.metrics["bleu"])
    assert (copy.high or 2) - (copy.low or 0) < 0.2


def test_answers_that_are_short_have_the_commonest_as_floor(tmp_path: Path) -> None:
    rows = [{"prompt": f"is {n} odd", "completion": "yes" if n % 4 else "no"} for n in range(20)]
    task = load(tmp_path, rows, rows, "instruction", metric="exact_match", max_target=4)
    (floor,) = beside(task, [row["completion"] for row in rows])
    assert (floor.name, floor.metrics["exact_match"]) == ("most frequent answer", 0.75)
    assert floor.margin == 0.25


def test_many_scored_rows_are_bounded(reviewed: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(reviewed.kind), "floor_limits", (10, 10**6))
    floors = beside(reviewed, ["yes"] * 40)
    assert {floor.rows for floor in floors} == {10}
