"""``task.on_bad``: which rows are refused, left out or listed, in files made by hand."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from failing_opens import RAISES, ends_with_each_open_refused
from iwlora.errors import BadRow, BadRowsError, IwloraError
from iwlora.tasks import Task, TaskSpec, load

pytestmark = pytest.mark.quick

TRAIN = "text,label\n" + "".join(f"film {n},{'good' if n % 2 else 'bad'}\n" for n in range(20))
DEV = "text,label\na film,good\na,b,c\n,bad\nthe end,odd\nno film,bad\n"
OF_DEV = [
    ("line 3", "3 fields, the header has 2; quote a field that holds ',', or give task.delimiter"),
    ("line 4", "column 'text' is empty"),
    ("line 5", "label 'odd' is not in TRAIN (accepted: bad, good)"),
]


def files(folder: Path, **content: str) -> dict[str, str]:
    """{split: path} of CSV files."""
    for split, text in content.items():
        (folder / f"{split}.csv").write_text(text, encoding="utf-8")
    return {split: str(folder / f"{split}.csv") for split in content}


def task_of(on_bad: str, paths: dict[str, str], **fields: Any) -> Task:
    return load(TaskSpec(**paths, **fields, on_bad=on_bad), seed=0)  # type: ignore[arg-type]


def error_of(on_bad: str, paths: dict[str, str], **fields: Any) -> BadRowsError:
    with pytest.raises(BadRowsError) as caught:
        task_of(on_bad, paths, **fields)
    return caught.value


def test_the_rows_that_remain_are_scored(tmp_path: Path) -> None:
    paths = files(tmp_path, train=TRAIN, validation=DEV)
    task = task_of("skip", paths)
    rows = task.splits["validation"]
    assert list(zip(rows["text"], rows["label"], strict=True)) == [("a film", 1), ("no film", 0)]
    assert len(task.splits["train"]) == 20
    file = paths["validation"]
    assert list(task.bad_rows) == [
        BadRow("validation", file, place, problem.replace("TRAIN", paths["train"]))
        for place, problem in OF_DEV
    ]
    assert (
        "validation: 3 of 5 rows, more than half: look at its columns and its format, cannot be "
        "used and are not scored (task.on_bad=skip)"
    ) in task.notes


def test_a_text_that_cannot_be_opened_now_is_no_bad_row(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.txt").write_text(f"film {number}", encoding="utf-8")

    def rows() -> int:
        task = task_of("skip", {"train": str(tmp_path)})
        return sum(map(len, task.splits.values()))

    assert rows() == 12
    assert {*ends_with_each_open_refused(rows, tmp_path)} <= {RAISES, 12}


def test_report_lists_at_once_what_refuse_tells_in_two_steps(tmp_path: Path) -> None:
    """A class is unknown only once the training rows are known to be sound."""
    paths = files(tmp_path, train=TRAIN, validation=DEV)
    assert [row.place for row in error_of("refuse", paths).rows] == ["line 3", "line 4"]
    assert [row.place for row in error_of("report", paths).rows] == ["line 3", "line 4", "line 5"]
    sound = {"train": paths["train"]}
    assert task_of("refuse", sound).bad_rows == ()
    with pytest.raises(IwloraError, match="there are none; take"):
        task_of("report", sound)


def test_a_row_of_several_problems_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"t {n}", "labels": [["a"], ["b"], ["a", "b"]][n % 3]} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dev = tmp_path / "dev.jsonl"
    wrong = [{"text": "x", "labels": ["c", "d"]}, {}, {"text": "y", "labels": ["a"]}]
    dev.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    task = task_of("skip", {"train": str(path), "validation": str(dev)}, kind="multi-label")
    assert [row.place for row in task.bad_rows] == ["line 2", "line 2", "line 1", "line 1"]
    assert task.splits["validation"]["text"][:] == ["y"]
    assert any(note.startswith("validation: 2 of 3 rows, more") for note in task.notes)


def test_a_file_of_which_nothing_remains_is_refused(tmp_path: Path) -> None:
    empty = "text,label\n,good\n,bad\n"
    for content in ({"train": empty}, {"train": TRAIN, "validation": empty}):
        paths = files(tmp_path, **content)
        error = error_of("skip", paths)
        last = paths[[*content][-1]]
        assert str(error).splitlines()[0] == f"{last}: none of its rows can be used"
        assert [row.place for row in error.rows] == ["line 2", "line 3"]
    unknown = files(tmp_path, train=TRAIN, test="text,label\nx,odd\n")
    assert "test.csv: none of its rows can be used" in str(error_of("skip", unknown))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,labels\nx,good\n", "unknown column 'label'"),
        ('text,label\n"x,good\n', "unexpected end of data"),
        ("text,label,label\nx,good,bad\n", "column 'label' 2 times"),
    ],
)
def test_what_is_wrong_with_a_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    paths = files(tmp_path, train=TRAIN, validation=content)
    with pytest.raises(IwloraError, match=message):
        task_of("skip", paths)
    (tmp_path / "validation.csv").write_bytes(b"text,label\nna\xefve,good\n")
    with pytest.raises(IwloraError, match="not UTF-8"):
        task_of("skip", paths)


def test_each_split_of_a_folder_has_its_own_rows(tmp_path: Path) -> None:
    import datasets

    def rows(*texts: str | None) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"text": list(texts), "label": ["a", "b", "a"]})

    splits = {"train": rows("x", None, "z"), "validation": rows("x", "y", "")}
    splits["train"] = datasets.concatenate_datasets([splits["train"], rows("k", "l", "m")])
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))  # type: ignore[arg-type]
    task = task_of("skip", {"train": str(tmp_path / "saved")})
    assert [row[:3] for row in task.bad_rows] == [
        ("train", str(tmp_path / "saved"), "row 2"),
        ("validation", str(tmp_path / "saved"), "row 3"),
    ]
    assert [len(task.splits[name]) for name in ("train", "validation")] == [5, 2]


def test_rows_of_mixed_files(tmp_path: Path) -> None:
    paths = files(tmp_path, train=TRAIN, more=TRAIN.replace("film", "") + ",good\n")
    del paths["more"]
    task = task_of("skip", paths, mix=[{"train": str(tmp_path / "more.csv")}])
    assert [row[1:3] for row in task.bad_rows] == [(str(tmp_path / "more.csv"), "line 22")]
    assert "train: 1 of 41 rows cannot be used and is left out (task.on_bad=skip)" in task.notes


def question(name: str, start: int, **changes: Any) -> dict[str, Any]:
    answers = [{"text": "Normandy", "answer_start": start}]
    return {"id": name, "question": f"Where {name}?", "answers": answers, **changes}


def test_misaligned_answers_of_squad(tmp_path: Path) -> None:
    context = " The Normans were in Normandy."
    sound = [question(name, context.index("Normandy")) for name in "abcd"]
    wrong = [question(name, start) for name, start in (("k", 3), ("l", 20), ("m", 99))]
    wrong += [{"id": "n", "question": "Why?"}, {"question": "Who?", "answers": 3}, "no question"]
    for part, questions in (("train", sound[:2] + wrong + sound[2:]), ("dev", sound)):
        article = {"paragraphs": [{"context": context, "qas": questions}]}
        (tmp_path / f"{part}-v1.1.json").write_text(json.dumps({"data": [article]}))
    spec = {"name": "squad/v1.1", "data_dir": str(tmp_path)}
    places = [f"question {name}" for name in ("k", "l", "m", "n", 7, 8)]
    assert [row.place for row in error_of("refuse", spec).rows] == places
    task = task_of("skip", spec)
    assert task.splits["train"]["question"][:] == [f"Where {name}?" for name in "abcd"]
    assert [row.place for row in task.bad_rows] == places
    assert [row.problem for row in task.bad_rows][2:] == [
        "the answer 'Normandy' is not in the passage at 99",
        "it has no 'answers'",
        *["it is no {id, question, answers: [{text, answer_start}]}"] * 2,
    ]
    assert error_of("report", spec).rows == task.bad_rows


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    """And so is a long line: what is shown of a file stays short."""
    classes = [f"class {n}" for n in range(2000)]
    train = "text,label\n" + "".join(f"film {n},{name}\n" for n, name in enumerate(classes))
    dev = "text,label\nx,class 1\n" + "x,odd\n" * 1224
    paths = files(tmp_path, train=train, validation=dev)
    error = error_of("refuse", paths)
    assert len(error.rows) == 1224
    lines = str(error).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "… and 1,204 more"
    assert len(str(error)) < 32_000 / 2
    assert "class 1999" in error.rows[0].problem, "the list itself is whole"


def test_the_error_may_go_to_another_process() -> None:
    error = BadRowsError([BadRow("train", "a.csv", "line 2", "3 fields")], ["b.csv is empty"])
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.rows, copy.others) == (str(error), error.rows, error.others)
