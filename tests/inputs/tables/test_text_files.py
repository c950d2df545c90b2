"""Folders of text files, and files with a word and its tags on each line."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.tables.reading import Reading
from iwlora.inputs.tables.records import (
    Problems,
    columns_of,
    notes_on,
    read_records,
    record_location,
    splits_of,
)
from iwlora.tasks import TaskSpec, load


def texts(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    texts(folder, train__neg__1="Bad.\r\nVery.", train__neg__2="Dull", train__pos__1="\ufeffGood")
    texts(folder, train__pos__2="Fine", train__unsup__1="Who knows", test__neg__1="No")
    texts(folder, test__pos__1="Yes")
    return folder


def rows_of(path: Path, columns: list[str], split: str = "train") -> list[tuple[object, ...]]:
    return [(n, *row) for n, row in read_records(str(path), columns, [], split)]


@pytest.mark.quick
def test_a_folder_for_each_class_and_split(films: Path) -> None:
    assert splits_of(str(films)) == ["train", "test"]
    assert columns_of(str(films)) == ["file", "text", "label"]
    assert rows_of(films, ["label", "text", "file"]) == [
        (1, "neg", "Bad.\nVery.", "1.txt"),
        (2, "neg", "Dull", "2.txt"),
        (3, "pos", "Good", "1.txt"),
        (4, "pos", "Fine", "2.txt"),
    ]
    assert rows_of(films, ["text"], "test") == [(1, "No"), (2, "Yes")]
    assert notes_on(str(films)) == [
        f"{films / 'train'}: texts without a class are not read (unsup)"
    ]
    assert record_location(str(films), 3) == f"{films}, train/pos/1.txt"
    task = load(TaskSpec(train=str(films)), seed=0)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 2,
        "validation": 2,
        "test": 2,
    }
    assert any("texts without a class" in note for note in task.notes)


def test_a_folder_of_texts_alone(tmp_path: Path) -> None:
    texts(tmp_path / "novel", b="two", a="one\n\nmore")
    (tmp_path / "novel" / "cover.png").write_bytes(b"\x89PNG")
    assert rows_of(tmp_path / "novel", columns_of(str(tmp_path / "novel"))) == [
        (1, "a.txt", "one\n\nmore\n".rstrip()),
        (2, "b.txt", "two"),
    ]
    with pytest.raises(IwloraError, match="unknown column 'label'"):
        rows_of(tmp_path / "novel", ["label"])


def test_what_is_wrong_with_one_text_names_it(films: Path) -> None:
    (films / "train" / "neg" / "1.txt").write_bytes(b"na\xefve")
    (films / "train" / "pos" / "2.txt").write_bytes(b"")
    problems: Problems = []
    records = read_records(str(films), ["text"], problems)
    assert [number for number, _ in records] == [2, 3, 4]
    assert problems[0][0] == 1
    assert "neg/1.txt, line 1: not UTF-8" in problems[0][1]
    with pytest.raises(IwloraError, match=r"films, train/pos/2\.txt: column 'text' is empty"):
        load(TaskSpec(train=str(films), encoding="cp1252"), seed=0)


def test_links_out_of_a_folder_are_refused(films: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (films / "train" / "neg" / "3.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(IwloraError, match="leads out of"):
        rows_of(films, ["text"])


def test_a_folder_without_texts_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(IwloraError, match=r"unknown file type ''.*a folder of \.txt files"):
        columns_of(str(tmp_path / "empty"))


# --- a word and its tags on each line ---


def saved(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_columns_of_a_column_file(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O\n\na DT O\nb NN B\n\n\n-DOCSTART- -X- O\nc NN B\n"
    path = saved(tmp_path, "a.conll", text)
    assert columns_of(str(path)) == ["tokens", "column2", "tags"]
    assert rows_of(path, ["tags", "column2", "tokens"]) == [
        (3, ["O", "B"], ["DT", "NN"], ["a", "b"]),
        (8, ["B"], ["NN"], ["c"]),
    ]


def test_a_broken_line_takes_its_sentence_and_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.bio", "a O\nb B I\n\nc O\n")
    problems: Problems = []
    assert list(read_records(str(path), ["tokens"], problems)) == [(4, [["c"]])]
    assert [number for number, _ in problems] == [2]
    assert problems[0][1].startswith("3 columns, the first line has 2; each line must have a word")


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.txt", "a O\nb B-X\n\nc O\n", ["tokens", "tags"]),
        ("a.txt", "text\tlabel\na b\tx\n\nc d\ty\n", ["text", "label"]),
        ("a.tsv", "text\tlabel\na\tx\n\nb\ty\n", ["text", "label"]),
        ("a.tsv", "a\tO\nb\tB-X\n\nc\tO\n", ["tokens", "tags"]),
        ("a.txt", "text;label\na b c;x\n", ["text", "label"]),
    ],
)
def test_words_with_tags_are_told_from_tables(
    name: str, text: str, columns: list[str], tmp_path: Path
) -> None:
    assert columns_of(str(saved(tmp_path, name, text))) == columns


def test_a_given_delimiter_makes_a_table(tmp_path: Path) -> None:
    path = str(saved(tmp_path, "a.txt", "a|O\nb|B\n\nc|O\n"))
    assert columns_of(path, reading=Reading(delimiter="|")) == ["a", "O"]
