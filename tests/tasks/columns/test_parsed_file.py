"""Where the rows of a task are in the files that they were read from."""

from __future__ import annotations

import json
from pathlib import Path

from iwlora.tasks import TaskSpec, load
from iwlora.tasks.splits import FILE, LINE
from iwlora.training.state.fingerprint import row_digests


def texts_of(place: Path | str, line: int) -> str:
    """What a person finds in a file at a line."""
    return Path(place).read_text(encoding="utf-8").split("\n")[line - 1]


def sentences(name: str, count: int) -> list[dict[str, str]]:
    return [{"text": f"{name} {k}", "mood": "bad" if k % 2 else "good"} for k in range(count)]


def write_csv(path: Path, rows: list[dict[str, str]], line_end: str = "\n") -> str:
    lines = ["text,mood", *(f"{row['text']},{row['mood']}" for row in rows)]
    path.write_text(line_end.join([*lines, ""]), encoding="utf-8", newline="")
    return str(path)


def test_rows_know_their_line_and_of_several_files_their_file(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in sentences("second", 20)), encoding="utf-8"
    )
    spec = TaskSpec(
        train=write_csv(
            tmp_path / "a.csv", [*sentences("first", 20), {"text": "", "mood": "good"}]
        ),
        mix=[{"train": str(tmp_path / "b.jsonl")}],
        text="text",
        label="mood",
        on_bad="skip",
        selection=0.2,
    )
    splits = load(spec, seed=0).splits
    assert {*splits} == {"train", "validation", "selection"}
    assert sum(map(len, splits.values())) == 40
    for split in splits.values():
        for row in split:
            assert row["text"] in texts_of(row[FILE], row[LINE])
    files = {row[FILE] for split in splits.values() for row in split}
    assert {Path(file).name for file in files} == {"a.csv", "b.jsonl"}


def test_lines_are_those_of_the_file_where_rows_are_left_out(tmp_path: Path) -> None:
    rows = sentences("text", 12)
    rows[3]["text"] = ""  # line 5
    validation = [*rows[6:8], {"text": "x", "mood": "unknown"}, *rows[8:10]]  # line 4
    spec = TaskSpec(
        train=write_csv(tmp_path / "train.csv", rows),
        validation=write_csv(tmp_path / "validation.csv", validation),
        text="text",
        label="mood",
        on_bad="skip",
    )
    splits = load(spec, seed=0).splits
    assert [*splits["train"][LINE]] == [2, 3, 4, *range(6, 14)]
    assert [*splits["validation"][LINE]] == [2, 3, 5, 6]
    assert FILE not in splits["train"].column_names, "the recipe names the only file"


def test_texts_of_a_folder_know_their_file(tmp_path: Path) -> None:
    for row in sentences("text", 20):
        folder = tmp_path / "texts" / row["mood"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row['text']}.txt").write_text(row["text"], encoding="utf-8")
    splits = load(TaskSpec(train=str(tmp_path / "texts")), seed=0).splits
    for split in splits.values():
        assert [texts_of(file, 1) for file in split[FILE]] == [*split["text"]]


def test_the_place_of_a_row_is_no_part_of_its_content(tmp_path: Path) -> None:
    rows = sentences("text", 20)
    blank = [*rows[:5], {"text": "", "mood": "bad"}, *rows[5:]]
    digests = [
        row_digests(load(TaskSpec(train=file, text="text", label="mood", on_bad="skip"), 0)).parts
        for file in (
            write_csv(tmp_path / "a.csv", rows),
            write_csv(tmp_path / "b.csv", blank),
            write_csv(tmp_path / "c.csv", [*rows[:5], *rows[6:], rows[5]]),
        )
    ]
    assert digests[0] == digests[1] != digests[2], "another order is other content"
