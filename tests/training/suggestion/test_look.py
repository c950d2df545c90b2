"""``iwlora tasks show``: each change that it names is accepted, and is then named no more."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from commands import Outcome, call
from iwlora.tasks.description import LINE_WIDTH

pytestmark = pytest.mark.quick

WORDS = "the dog sees a cat"
CHINESE = "\u5317\u4eac\u662f\u9996\u90fd"


def rows_of(folder: Path, name: str, rows: list[str]) -> Path:
    (folder / name).write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return folder / name


@pytest.fixture
def odd(tmp_path: Path) -> list[str]:
    """A file with everything that is worth a change, and rows to score that are copies of it."""
    rows = [
        f"{f'{WORDS} ' * (12 if n % 3 == 0 else 1)}{n // 10} {n % 10},{'x' if n % 30 else 'rare'}"
        for n in range(120)
    ]
    rows += [f"{CHINESE * 8} {n},x" for n in range(4)]
    train = rows_of(tmp_path, "train.csv", [*rows, ",x", "a,b,c"])
    return [str(train), f"task.validation={rows_of(tmp_path, 'dev.csv', rows[40:70])}"]


def changes_in(shown: Outcome) -> dict[str, str]:
    """{setting: reason} of what the end of the text says."""
    assert shown.code == 0, shown.err
    _, _, end = shown.out.partition("\nwhat to change:\n")
    joined = re.sub(r"\n {5,}", " ", end)
    lines = [line.strip().split("  ", 1) for line in joined.splitlines()]
    return {setting: reason.strip() for setting, reason in lines}


def test_every_change_is_accepted_and_then_gone(
    odd: list[str], tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tasks", "show", "--model", tiny_bert, "train.max_length=16", *odd]
    shown = call(capsys, *arguments)
    found = changes_in(shown)
    assert list(found) == [
        "task.on_bad=skip",
        "model=xlm-roberta-base",
        "train.max_length=64",  # what the tiny model reads
        "train.class_weights=balanced",
        "task.validation=null",
    ]
    assert found["task.on_bad=skip"].startswith("2 rows cannot be used")
    assert found["train.class_weights=balanced"].startswith("'x' has 120 rows and 'rare' 4")
    assert found["task.validation=null"].startswith("30 of its 30 rows have the texts")
    assert "most letters are Latin" in found["model=xlm-roberta-base"]
    assert f"{tmp_path / 'train.csv'}, line 126: column 'text' is empty\n" in shown.out

    settings = [setting for setting in found if not setting.startswith("model=")]
    after = changes_in(call(capsys, *arguments, *settings))
    assert list(after) == ["model=xlm-roberta-base"], "the tokenizer is the same one"


def test_sound_data_need_no_change(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = WORDS.split()
    rows = [f"{words[n % 5]} {words[n // 5]} {words[n // 3 % 5]},{n % 2}" for n in range(25)]
    shown = call(capsys, "tasks", "show", rows_of(tmp_path, "a.csv", rows), "--model", tiny_bert,
                 "train.max_length=16")  # fmt: skip
    assert shown.code == 0, shown.err
    assert shown.out.endswith("\n\nwhat to change: nothing that the data show\n")
    assert "unknown  0.0% of the tokens" in shown.out
    assert "letters  Latin 100.0%" in shown.out
    assert "labels: no text stands with two labels of the 25 rows that were compared" in shown.out


def test_labels_that_differ_are_shown_with_their_lines(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"the dog sees {'a ' * n},{'pos' if n % 2 else 'neg'}" for n in range(24)]
    file = rows_of(tmp_path, "a.csv", [*rows, "The DOG sees a!,neg"])
    shown = call(capsys, "tasks", "show", file, "--model", tiny_bert, "train.max_length=32")
    text = " ".join(shown.out.split())
    assert "labels: 1 text with different labels, in 2 of the 25 rows that were compared" in text
    assert f"'pos' ({file}, line 3) and 'neg' ({file}, line 26): the dog sees a" in text


def test_a_file_in_another_script_is_pointed_out(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{CHINESE[n % 5]}{CHINESE[n // 5]},{n % 2}" for n in range(25)]
    shown = call(capsys, "tasks", "show", rows_of(tmp_path, "zh.csv", rows), "--model", tiny_bert,
                 "train.max_length=16")  # fmt: skip
    assert "letters  Han 100.0%" in shown.out
    assert "the vocabulary was not made for these" in shown.out
    assert "100.0% of the tokens are unknown to" in changes_in(shown)["model=xlm-roberta-base"]


def test_a_file_of_which_nothing_remains_is_refused(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, "tasks", "show", rows_of(tmp_path, "a.csv", [",x", ",y"]))
    assert shown.code == 2
    assert "none of its rows can be used" in shown.err


def test_lines_are_short(
    odd: list[str], tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the paths of files, which are not divided."""
    shown = call(capsys, "tasks", "show", "--model", tiny_bert, "train.max_length=16", *odd)
    long = [line for line in shown.out.splitlines() if len(line) > LINE_WIDTH]
    assert all(str(tmp_path) in line or str(tiny_bert) in line for line in long), long


def test_a_tokenizer_that_fails_on_the_texts(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    file = model / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["model"]["vocab"]["[UNK]"]
    file.write_text(json.dumps(content), encoding="utf-8")
    train = rows_of(tmp_path, "train.csv", [f"{CHINESE} {n},{'xy'[n % 2]}" for n in range(20)])
    shown = call(capsys, "tasks", "show", "--model", model, str(train))
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("error: the tokenizer cannot encode these texts: ")
