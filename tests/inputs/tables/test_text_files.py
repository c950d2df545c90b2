"""Folders of text files, and files with a word and its tags on each line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.places import MOST_BYTES
from iwlora.inputs.tables.folders.layout import count_files, folder_splits
from iwlora.inputs.tables.folders.texts import TEXT_ENDINGS
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


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "validation", "test"], ["train", "validation", "test"]),
        (["training", "testing"], ["train", "test"]),
        (["training", "valid"], ["train", "validation"]),
        (["train", "val"], ["train", "validation"]),
        (["training", "dev", "notes"], ["train", "validation"]),
        (["train", "unsup"], ["train"]),
        (["training"], ["train"]),
        (["sales", "support", "training"], []),  # three classes
        (["plane", "train"], []),
        (["test", "val"], []),
    ],
)
def test_the_names_of_splits(folders: list[str], splits: list[str], tmp_path: Path) -> None:
    texts(tmp_path, **{f"{folder}__1": folder for folder in folders})
    assert splits_of(str(tmp_path)) == splits
    assert ("label" in columns_of(str(tmp_path))) == (not splits)
    first = splits[0] if splits else "train"
    expected = folders[:1] if splits else folders
    assert [text for _, text in rows_of(tmp_path, ["text"], first)] == expected


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


def test_a_linked_folder_elsewhere_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "rows").mkdir()
    assert count_files(str(tmp_path / "elsewhere"), TEXT_ENDINGS) == [1]
    (tmp_path / "rows" / "train").symlink_to(tmp_path / "elsewhere")
    assert count_files(str(tmp_path / "rows"), TEXT_ENDINGS) == [0]
    assert folder_splits(str(tmp_path / "rows")) == []


def test_a_folder_is_not_listed_again_for_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[object] = []
    listing = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: (listed.append(folder), listing(folder))[1])
    counts = []
    for rows in (4, 40):
        folder = tmp_path / str(rows)
        texts(folder, **{f"{'ab'[k % 2]}__{k}": f"text {k}" for k in range(rows)})
        listed.clear()
        assert sum(map(len, load(TaskSpec(train=str(folder)), seed=0).splits.values())) == rows
        counts.append(len(listed))
    assert counts[0] == counts[1] > 0


NOVEL = "The lamp went out, slowly.\r\nNobody spoke; so it is said.\r\n\r\n\r\nMorning.\r\n"


@pytest.mark.parametrize(
    ("text", "expected", "how"),
    [
        (
            NOVEL,
            [
                (1, "The lamp went out, slowly.\nNobody spoke; so it is said."),
                (5, "Morning."),
            ],
            "blank lines are between them",
        ),
        (
            "Prologue\n\nIt rained, and rained.\n",
            [(1, "Prologue"), (3, "It rained, and rained.")],
            "blank lines",
        ),
        ("It was a dark night,\nor so.", [(1, "It was a dark night,"), (2, "or so.")], "each line"),
        ('"It rains," he said, "and rains."\nYes, it does.', None, "one on each line"),
    ],
)
def test_a_file_of_texts(
    text: str, expected: list[tuple[int, str]] | None, how: str, tmp_path: Path
) -> None:
    path = tmp_path / "novel.txt"
    path.write_bytes(text.encode())
    assert columns_of(str(path)) == ["text"]
    lines = text.splitlines()
    assert rows_of(path, ["text"]) == (expected or list(enumerate(lines, start=1)))
    (note,) = notes_on(str(path))
    assert how in note
    assert "for a table give task.header=true" in note
    assert columns_of(str(path), reading=Reading(header=True, delimiter="\t")) == [lines[0]]


@pytest.mark.parametrize(
    "text",
    [
        "text\nWe sailed at six and saw no land.\n",
        "Review Text\nWe sailed, at six.\n\n",
        "what was said;label\nyes;a\nno, never;b\n",
        "what, was, said\n" + '"a, b",c,d\n' * 3,
    ],
)
def test_tables_in_text_files_are_no_texts(text: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "a.txt", text)
    assert columns_of(str(path)) != ["text"] or text.startswith("text\n")
    assert rows_of(path, columns_of(str(path))[:1])[0][0] == 2
    texts_alone = Reading(plain_texts=True)
    assert columns_of(str(path), reading=texts_alone) == ["text"]
    first = next(read_records(str(path), ["text"], [], reading=texts_alone))
    assert first[0] == 1
    assert first[1][0].startswith(text.partition("\n")[0])


def test_a_text_that_does_not_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_BYTES, "line", 30)
    path = saved(tmp_path, "a.txt", "A word.\n\n" + "No blank line.\n" * 3)
    with pytest.raises(
        IwloraError, match=r"a\.txt, line 3: a text of more than .* put blank lines"
    ):
        rows_of(path, ["text"])


def test_a_folder_without_texts_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(IwloraError, match=r"no files that are read .*a folder of \.txt files"):
        columns_of(str(tmp_path / "empty"))
    with pytest.raises(IwloraError, match=r"nowhere: no such file or folder \(accepted"):
        columns_of(str(tmp_path / "nowhere"))


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
