"""What a reader must know about a split: absent classes, rows that training sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.tasks import Task, TaskSpec, load

pytestmark = pytest.mark.quick


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reviews(classes: str) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": name} for i, name in enumerate(classes)]


def notes(task: Task) -> list[str]:
    return [note for note in task.notes if not note.startswith("inferred")]


def test_a_rare_class_is_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", reviews("f" * 9 + "n" * 291))
    task = load(TaskSpec(train=path), seed=0)
    assert notes(task) == [f"validation: 30 of the 300 rows of {path}, held out"]
    assert task.labels == ("f", "n")
    assert 0 in task.splits["validation"]["label"]
    former = load(TaskSpec(train=path, split="by-class"), seed=0)
    assert 0 not in former.splits["validation"]["label"], "as a run that began with it goes on"
    assert "validation has no row of the class 'f'" in notes(former)[1]


def test_an_absent_class_is_named(tmp_path: Path) -> None:
    files = {
        "train": write(tmp_path / "a.jsonl", reviews("abbcc")),
        "validation": write(tmp_path / "b.jsonl", [{"text": "new", "label": "b"}]),
    }
    assert notes(load(TaskSpec(**files), seed=0)) == [
        "validation has no row of the classes 'a', 'c', so its scores do not say how well they are "
        "predicted; macro_f1 is the mean over the classes that occur among its labels or "
        "predictions"
    ]
    kind = {"name": "multi-label"}
    (note,) = notes(load(TaskSpec(**files, kind=kind), seed=0))
    assert note.endswith("; macro_f1 is the mean over all classes, and such a class adds 0")
    alone = load(TaskSpec(train=files["train"]), seed=0)
    assert "validation has no row of the class 'a'" in notes(alone)[1], "it has one row"
    few = load(TaskSpec(**files, max_train=1), seed=0)
    assert any(note.startswith("train has no row of the classes") for note in notes(few))


def test_rows_of_the_user_s_own_split_that_are_trained_on(tmp_path: Path) -> None:
    train = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    other = [{"text": "a", "label": "y"}, {"text": "b", "label": "y"}, {"text": "c", "label": "x"}]
    task = TaskSpec(
        train=write(tmp_path / "t.jsonl", train), validation=write(tmp_path / "v.jsonl", other)
    )
    assert notes(load(task, seed=0)) == [
        "validation: 2 of 3 rows have the texts of a training row, 1 of them with another label"
    ]


def test_a_shared_premise_is_reported_and_can_be_a_group(tmp_path: Path) -> None:
    pairs = [
        {"premise": f"p {i // 4}", "hypothesis": f"h {i}", "label": "ab"[i % 2]} for i in range(40)
    ]
    path = write(tmp_path / "a.jsonl", pairs)
    shared = notes(load(TaskSpec(train=path), seed=0))[1]
    assert shared == (
        "validation: 4 of 4 rows have the premise of a training row; task.group=premise keeps such "
        "rows together"
    )
    task = load(TaskSpec(train=path, group="premise", selection=0.2), seed=0)
    assert len(notes(task)) == 1
    premises = [set(split["premise"]) for split in task.splits.values()]
    assert len(set.union(*premises)) == sum(map(len, premises)) == 10


def test_a_group_column_of_the_user_s_file(tmp_path: Path) -> None:
    rows = [{**row, "author": i % 6} for i, row in enumerate(reviews("ab" * 30))]
    path = write(tmp_path / "a.jsonl", rows)
    task = load(TaskSpec(train=path, group="author", selection=0.2), seed=0)
    authors = [set(split["author"]) for split in task.splits.values()]
    assert sum(map(len, authors)) == 6
    assert "not read" not in task.notes[0]
    holdout = load(TaskSpec(train=path, group="author", holdout=0.2), seed=0)
    assert not set(holdout.splits["train"]["author"]) & set(holdout.splits["validation"]["author"])
    del rows[7]["author"]
    with pytest.raises(IwloraError, match="line 8: unknown column 'author'"):
        load(TaskSpec(train=write(tmp_path / "b.jsonl", rows), group="author"), seed=0)
    with pytest.raises(ValueError, match=r"task\.group=label is the label"):
        TaskSpec(train=path, group="label")
    with pytest.raises(ValueError, match=r"task\.group=x: glue/rte has no such column \(sentence1"):
        TaskSpec(name="glue/rte", group="x")


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_where_the_real_problem_is_the_kind_the_message_says_so(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": f"t {i}", "score": i} for i in range(count)])
    with pytest.raises(IwloraError) as caught:
        load(TaskSpec(train=path), seed=0)
    assert str(caught.value) == (
        f"{path} has {count} rows of {count} classes in column 'score', and no class has two rows "
        "that differ in texts, so none can be held out for validation: if the column holds "
        "numbers, give task.kind=regression; if it holds texts to generate, task.kind=seq2seq; "
        "else give task.validation=FILE"
    )
    regression = load(TaskSpec(train=path, kind={"name": "regression"}), seed=0)
    assert len(regression.splits["validation"]) == max(1, count // 10)


def test_equal_rows_are_one_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"source": "same", "target": "t"}] * 20)
    with pytest.raises(IwloraError, match="20 rows, and no two of them differ in texts"):
        load(TaskSpec(train=path), seed=0)


def test_constant_numbers_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": f"t {i}", "score": 2.5} for i in range(20)])
    assert notes(load(TaskSpec(train=path), seed=0))[1:] == [
        "train: the number of every row is 2.5, so nothing can be learned",
        "validation: the number of every row is 2.5, so no correlation can be computed",
    ]
