"""Columns and kind are inferred where obvious; folders of ``datasets`` name their classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from failing_opens import RAISES, ends_with_each_open_refused
from iwlora.errors import IwloraError
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.columns.infer import infer_columns

pytestmark = pytest.mark.quick


def task_of(folder: Path, row: dict[str, Any], **spec: Any) -> Task:
    """A task whose every row is this one; class labels alternate."""
    rows = [{**row, "n": k} for k in range(2)]
    for name in ("label", "mood"):
        if name in row:
            rows[1][name] = "other"
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return load(TaskSpec(train=str(file), validation=str(file), **spec), seed=0)


CASES = [
    ({"text": "a", "label": "x"}, {}, "classification", ("text",), "text=text, label=label"),
    ({"text": "a", "mood": "x"}, {"label": "mood"}, "classification", ("text",), "text=text"),
    (
        {"premise": "a", "hypothesis": "b", "label": "x"},
        {},
        "classification",
        ("premise", "hypothesis"),
        "text=premise + hypothesis",
    ),
    ({"sentence": "a", "score": 1.5}, {}, "regression", ("sentence",), "label=score"),
    ({"text": "a", "labels": ["x", "y"]}, {}, "multi-label", ("text",), "label=labels"),
    (
        {"text": "a", "rude": 1, "toxic": 0},
        {"label": ["rude", "toxic"]},
        "multi-label",
        ("text",),
        "text=text",
    ),
    ({"tokens": ["a"], "ner_tags": ["O"]}, {}, "token-labels", ("tokens",), "label=ner_tags"),
    (
        {"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": [0]}},
        {},
        "question-answering",
        ("question", "context"),
        "label=answers",
    ),
    ({"document": "a", "summary": "b"}, {}, "seq2seq", ("document",), "label=summary"),
    ({"prompt": "a", "completion": "b"}, {}, "instruction", ("prompt",), "label=completion"),
    (
        {"prompt": "a", "completion": "b"},
        {"text": "prompt", "label": "completion"},
        "instruction",
        ("prompt",),
        "kind=instruction",
    ),
    (
        {"instruction": "a", "input": "", "output": "b"},
        {},
        "instruction",
        ("instruction", "input"),
        "text=instruction + input, label=output",
    ),
    (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {},
        "instruction",
        ("messages",),
        "text=messages, kind=instruction",
    ),
]


@pytest.mark.parametrize(("row", "spec", "kind", "text", "inferred"), CASES)
def test_what_is_inferred(
    row: dict[str, Any],
    spec: dict[str, Any],
    kind: str,
    text: tuple[str, ...],
    inferred: str,
    tmp_path: Path,
) -> None:
    task = task_of(tmp_path, row, **spec)
    assert (task.kind.name, task.text) == (kind, text)
    note, copies, *_ = task.notes
    assert "have the texts of a training row" in copies
    assert note.startswith(f"inferred from {tmp_path / 'train.jsonl'}: ")
    assert inferred in note
    if not spec.get("text"):
        assert note.endswith("; not read: n")


def test_what_is_not_obvious_must_be_given(tmp_path: Path) -> None:
    for row, spec, message in (
        (
            {"a": "x", "b": "y"},
            {},
            r"column holds the text; give task\.text=COLUMN \(columns: a, b, n\)",
        ),
        ({"text": "x", "b": "y"}, {}, r"column holds the label; give task\.label=COLUMN"),
        (
            {"text": "x", "a": 0, "b": 1},
            {"label": ["a", "b"], "kind": "regression"},
            r"task\.label names 2 columns; a task of kind regression has one",
        ),
        (
            {"text": "x", "b": "y"},
            {"text": ["text", "b"], "label": "n", "kind": "seq2seq"},
            r"task\.text names 2 columns; a task of kind seq2seq has 1",
        ),
    ):
        with pytest.raises(IwloraError, match=message):
            task_of(tmp_path, row, **spec)


def reviews(folder: Path, header: list[str]) -> str:
    """A file of 40 reviews: number, text, title, stars, and a class."""
    rows = [
        [n, f"{n} people left the cinema before the end", f"film {n}", 1 + n % 5, "ab"[n % 2]]
        for n in range(40)
    ]
    file = folder / "reviews.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(file)


def test_a_guess_is_printed_with_its_alternatives(tmp_path: Path) -> None:
    path = reviews(tmp_path, ["Id", "Review Text", "Title", "Stars", "Branch"])
    task = load(TaskSpec(train=path), seed=0)
    assert task.text == ("Review Text",)
    assert task.labels == ("1", "2", "3", "4", "5")
    assert task.notes[0] == (
        f"inferred from {path}: text=Review Text (or task.text=Title), label=Stars (or "
        "task.label=Branch), kind=classification (or task.kind=regression); not read: Id, Title, "
        "Branch"
    )
    mended = load(TaskSpec(train=path, label="Branch"), seed=0)
    assert (mended.text, mended.labels) == (("Review Text",), ("a", "b"))
    with pytest.raises(IwloraError, match="unknown column 'stars'; did you mean 'Stars'"):
        load(TaskSpec(train=path, label="stars"), seed=0)


def test_a_translation_may_be_scored_with_bleu(tmp_path: Path) -> None:
    file = tmp_path / "signs.csv"
    file.write_text("de,en\nKein Eingang,No entry\nKasse,Cash desk\n", encoding="utf-8")
    (note,) = infer_columns(TaskSpec(train=str(file))).notes
    assert note.endswith(
        "text=de (or task.text=en), label=en, kind=seq2seq (or 'task.kind={name: seq2seq, "
        "metric: bleu}')"
    )


def test_an_error_has_assignments_to_copy(tmp_path: Path) -> None:
    unclear = reviews(tmp_path, ["n", "note", "name", "first", "Mood of day"])
    with pytest.raises(IwloraError) as error:
        load(TaskSpec(train=unclear), seed=0)
    assert str(error.value) == (
        f"{unclear}: several columns may hold the label; give one of task.label=first, "
        "'task.label=Mood of day' (columns: n, note, name, first, Mood of day)"
    )


def test_official_files_of_glue(glue_dir: Path) -> None:
    for name, text, label in (
        ("RTE", ("sentence1", "sentence2"), "label"),
        ("SST-2", ("sentence",), "label"),
        ("MRPC", ("#1 String", "#2 String"), "Quality"),
    ):
        columns = infer_columns(TaskSpec(train=str(glue_dir / name / "train.tsv")))
        assert (columns.text, columns.label, columns.kind.name) == (
            text,
            (label,),
            "classification",
        )


def test_folders_of_datasets_name_their_classes(tmp_path: Path) -> None:
    moods = datasets.ClassLabel(names=["sad", "glad"])
    tags = datasets.ClassLabel(names=["O", "B-X", "I-X"])
    text = datasets.Value("string")
    flat = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "label": [1, 0]},
        features=datasets.Features({"text": text, "label": moods}),
    )
    lists = datasets.Dataset.from_dict(
        {"tokens": [["a", "b"], ["c"]], "ner_tags": [[1, 2], [0]]},
        features=datasets.Features(
            {"tokens": datasets.Sequence(text), "ner_tags": datasets.Sequence(tags)}
        ),
    )
    several = datasets.DatasetDict({"train": flat, "validation": flat, "test": flat.select([0])})
    several.save_to_disk(str(tmp_path / "flat"))
    lists.save_to_disk(str(tmp_path / "lists"))
    task = load(TaskSpec(train=str(tmp_path / "flat")), seed=0)
    assert {name: list(split["label"]) for name, split in task.splits.items()} == {
        "train": [0, 1],
        "validation": [0, 1],
        "test": [0],
    }
    assert task.labels == ("glad", "sad")
    flat.to_parquet(str(tmp_path / "flat.parquet"))
    lists.to_parquet(str(tmp_path / "lists.parquet"))
    (stored,) = (tmp_path / "flat" / "train").glob("*.arrow")
    for path in (str(tmp_path / "flat.parquet"), str(stored)):
        task = load(TaskSpec(train=path, validation=path), seed=0)
        assert (task.labels, [*task.splits["train"]["label"]]) == (("glad", "sad"), [0, 1])
    for path in (str(tmp_path / "lists.parquet"), str(tmp_path / "lists")):
        _check_words(path)


def _check_words(path: str) -> None:
    words = load(TaskSpec(train=path, validation=path), seed=0)
    assert words.labels == ("B-X", "I-X", "O")
    assert list(words.splits["train"]["label"]) == [[0, 1], [2]]
    assert words.metrics[0] == "f1"


def test_an_error_names_the_row_of_a_folder(tmp_path: Path) -> None:
    moods = datasets.ClassLabel(names=["sad", "glad", "new"])
    features = datasets.Features({"text": datasets.Value("string"), "label": moods})
    rows = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(str(tmp_path / "bad"))
    path = str(tmp_path / "bad")
    with pytest.raises(IwloraError, match=r"bad, row 3: column 'label' is empty"):
        load(TaskSpec(train=path, validation=path), seed=0)


def written(folder: Path, labels: list[str], **spec: Any) -> Task:
    """A task whose rows have these labels, written in a CSV file."""
    file = folder / "train.csv"
    rows = [(f"text {number}", label) for number, label in enumerate(labels)]
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "mood"), *rows])
    return load(TaskSpec(train=str(file), validation=str(file), label="mood", **spec), seed=0)


@pytest.mark.parametrize("mark", [",", ";", "|", ", ", "/"])
def test_cells_with_several_classes_are_divided_where_their_parts_stand_alone(
    mark: str, tmp_path: Path
) -> None:
    task = written(tmp_path, [mark.join(("comedy", "drama")), "comedy", "drama", ""])
    assert (task.kind.name, task.labels) == ("multi-label", ("comedy", "drama"))
    assert task.splits["train"]["label"][:] == [[0, 1], [0], [1], []]
    assert any(f"{mark.strip()!r} separates the classes of a cell" in note for note in task.notes)


@pytest.mark.parametrize(
    "labels", [["New York, NY", "Buffalo, NY", "Boston, MA"], ["a,b", "b,c", "a,c"]]
)
def test_a_comma_within_names_divides_nothing_and_is_named(
    labels: list[str], tmp_path: Path
) -> None:
    task = written(tmp_path, labels)
    assert (task.kind.name, len(task.labels)) == ("classification", 3)
    assert any("3 of 3 classes hold ',', such as" in note for note in task.notes)
    assert not any("hold" in note for note in written(tmp_path, ["a", "b"]).notes)


def test_commas_between_class_ids_are_no_decimal_commas(tmp_path: Path) -> None:
    task = written(tmp_path, ["27", "2", "2,27", "5", "2,5,27"])
    assert (task.kind.name, task.labels) == ("multi-label", ("2", "5", "27"))
    with pytest.raises(IwloraError, match=r"'2,5', which may be the number 2.5 or the classes 2 a"):
        written(tmp_path, ["2", "5", "2,5"])
    assert (
        written(tmp_path, ["2", "5", "2,5"], kind="regression").splits["train"]["label"][2] == 2.5
    )
    assert written(tmp_path, ["1,5", "2", "3,5"]).kind.name == "regression"


@pytest.mark.parametrize("labels", [["1,500", "2,250"], ["$5", "$7"], ["4.5", "5", "n/a"]])
def test_numbers_that_are_read_as_classes_are_named(labels: list[str], tmp_path: Path) -> None:
    task = written(tmp_path, labels)
    assert task.kind.name == "classification"
    assert any("are read as classes, not as numbers" in note for note in task.notes)
    assert not any("not as numbers" in note for note in written(tmp_path, ["1", "2"]).notes)


def test_classes_that_differ_in_case_only_are_named(tmp_path: Path) -> None:
    task = written(tmp_path, ["Yes", "yes", "No"])
    assert "classes that differ in upper and lower case only: 'Yes', 'yes'" in task.notes


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ({"name": "multi-label", "separator": "/"}, ["a/b,c", "a"]),
        ("multi-label", ["a|b,c", "a"]),
        ("multi-label", ["['a', 'b,c']", "['a']"]),
        (None, ["['a', 'b,c']", '["a"]']),
        (None, ["['a' 'b,c']", "['a']"]),
        (None, ["('a', 'b,c')", "('a',)", "{'a'}"]),
    ],
)
def test_the_separator_may_be_given_and_lists_need_none(
    kind: Any, labels: list[str], tmp_path: Path
) -> None:
    task = written(tmp_path, labels, kind=kind)
    assert (task.kind.name, task.labels) == ("multi-label", ("a", "b,c"))


def test_columns_are_not_guessed_among_thousands(tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    names = ["text", *(f"c{number}" for number in range(20_000)), "label"]
    file.write_text("".join(",".join([a, *["0"] * 20_000, b]) + "\n" for a, b in ("xy", "zw")))
    file.write_text(",".join(names) + "\n" + file.read_text())
    spec = TaskSpec(train=str(file))
    with pytest.raises(IwloraError, match=r"20,002 columns.*task.text and task.label"):
        infer_columns(spec)
    given = infer_columns(TaskSpec(train=str(file), text="text", label="label"))
    assert (given.text, given.label) == (("text",), ("label",))


def test_a_file_that_cannot_be_opened_for_a_moment_changes_no_guess(tmp_path: Path) -> None:
    file = tmp_path / "houses.csv"
    file.write_text("text,price\n" + "".join(f"house {n},{n}.5\n" for n in range(20)))

    def kind() -> str:
        return load(TaskSpec(train=str(file), text="text", label="price"), seed=0).kind.name

    assert kind() == "regression"
    ends = ends_with_each_open_refused(kind, tmp_path)
    assert len(ends) > 2
    assert {*ends} <= {RAISES, "regression"}


def test_a_run_of_an_older_version_keeps_its_classes(tmp_path: Path) -> None:
    task = written(tmp_path, ["a,b", "a", "b"], former_kind_defaults=True)
    assert task.labels == ("a", "a,b", "b")


def test_numbers_with_a_decimal_comma_or_a_percent_sign(tmp_path: Path) -> None:
    task = written(tmp_path, ["1,5", "8", "2", "-0.25"])
    assert task.kind.name == "regression"
    assert task.splits["train"]["label"][:] == [1.5, 8.0, 2.0, -0.25]
    task = written(tmp_path, ["80%", "12,5 %"])
    assert task.kind.name == "regression"
    assert task.splits["train"]["label"][:] == [0.8, 0.125]
    for kind in (None, "regression"):
        with pytest.raises(IwloraError, match=r"with a percent sign \(.*line 3\); 80% is 0.8: wri"):
            written(tmp_path, ["0.5", "80%", "2"], kind=kind)
    with pytest.raises(IwloraError, match=r"'1,500', which may be 1.500 or 1500; write a decimal"):
        written(tmp_path, ["1,500", "2"], kind="regression")


def test_words_that_other_tools_read_as_missing_stay_classes(tmp_path: Path) -> None:
    names = ["N/A", "NA", "None", "nan", "null"]
    task = written(tmp_path, names)
    assert (task.kind.name, task.labels) == ("classification", tuple(names))
    with pytest.raises(IwloraError, match="line 3: column 'mood' is empty"):
        written(tmp_path, ["a", "", "b"])


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["re\u0301sume\u0301", "r\u00e9sum\u00e9"], r"'re\\u0301sume\\u0301', 'r\\xe9sum\\xe9'"),
        (["1", "1.0", "2"], "'1', '1.0'"),
        (["a b", "a  b"], "'a  b', 'a b'"),
    ],
)
def test_classes_that_look_the_same_are_refused(
    labels: list[str], named: str, tmp_path: Path
) -> None:
    with pytest.raises(IwloraError, match=f"classes that look the same: {named}; write them"):
        written(tmp_path, labels)
