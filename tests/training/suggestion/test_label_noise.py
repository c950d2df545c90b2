"""Texts that stand with different labels, in files made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iwlora.tasks import TaskSpec, load
from iwlora.training.recipe import build
from iwlora.training.suggestion import label_noise
from iwlora.training.suggestion.label_noise import LabeledRow, LabelNoise, find_label_noise
from iwlora.training.suggestion.look import look_at_data

pytestmark = pytest.mark.quick


def noise_of(on_bad: str = "refuse", **fields: Any) -> LabelNoise:
    spec = TaskSpec(**fields, on_bad=on_bad)  # type: ignore[arg-type]
    found = find_label_noise(load(spec, seed=0), spec)
    assert found is not None
    return found


@pytest.fixture
def table(tmp_path: Path) -> str:
    """30 rows; lines 32 to 36 differ from earlier ones in case, spaces and punctuation only."""
    rows = [f"film {n},{'good' if n % 2 else 'bad'}" for n in range(30)]
    rows += ["Film  3!,bad", '"film, 4",bad', "FILM 5,bad", "film 5,bad", "\u4eac 1,good"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return str(path)


def test_equal_texts_with_other_labels(table: str) -> None:
    """The label of film 4 is the same, so it is none of them."""
    noise = noise_of(train=table)
    assert (noise.texts, noise.rows, noise.compared) == (2, 5, 35)
    assert noise.first == (
        (LabeledRow(f"{table}, line 5", "film 3", "good"),
         LabeledRow(f"{table}, line 32", "Film  3!", "bad")),
        (LabeledRow(f"{table}, line 7", "film 5", "good"),
         LabeledRow(f"{table}, line 34", "FILM 5", "bad")),
    )  # fmt: skip


def test_without_noise_nothing_is_found(table: str) -> None:
    lines = Path(table).read_text(encoding="utf-8").splitlines()
    Path(table).write_text("\n".join([*lines[:31], lines[32]]) + "\n", encoding="utf-8")
    noise = noise_of(train=table)
    assert (noise.texts, noise.rows, noise.first, noise.compared) == (0, 0, (), 31)


def test_rows_of_other_files_are_compared_too(table: str, tmp_path: Path) -> None:
    dev = tmp_path / "dev.csv"
    dev.write_text("text,label\n,bad\nfilm 8.,good\n")
    noise = noise_of("skip", train=table, validation=str(dev))
    assert noise.texts == 3
    assert noise.first[2][1] == LabeledRow(f"{dev}, line 3", "film 8.", "good")


def test_of_large_files_the_first_rows(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_noise, "MOST_ROWS", 31)
    noise = noise_of(train=table)
    assert (noise.texts, noise.compared) == (1, 31)


def test_pairs_lists_and_several_classes(tmp_path: Path) -> None:
    """A pair is not the text of both; the order of classes says nothing, that of tags does."""

    def noise(rows: list[dict[str, Any]], **fields: Any) -> LabelNoise:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return noise_of(train=str(path), **fields)

    fill = [{"premise": f"p {n}", "hypothesis": "h", "label": "ab"[n % 2]} for n in range(20)]
    moved = [
        {"premise": "a b", "hypothesis": "c", "label": "a"},
        {"premise": "a", "hypothesis": "b c", "label": "b"},
    ]
    assert noise([*fill, *moved]).texts == 0
    assert noise([*fill, moved[0], {**moved[0], "label": "b"}]).texts == 1
    several = [{"text": f"t {n}", "label": [["a"], ["b"], ["a", "b"]][n % 3]} for n in range(30)]
    turned = {"text": "t 2", "label": ["b", "a"]}
    assert noise([*several, turned], kind="multi-label").texts == 0
    assert noise([*several, {**turned, "label": ["b"]}], kind="multi-label").texts == 1
    tagged = [{"tokens": ["x", str(n)], "tags": ["A", "O"]} for n in range(20)]
    found = noise([*tagged, {"tokens": ["X", "3"], "tags": ["O", "A"]}])
    assert [row.label for row in found.first[0]] == ["A O", "O A"]


def test_a_named_task_has_rows_without_lines() -> None:
    """Whether a sentence entails another follows from the two: none has two labels."""
    noise = noise_of(name="builtin/entailment", max_train=200, max_validation=50)
    assert (noise.texts, noise.compared) == (0, 200 + 50 + 1330)


def test_numbers_and_texts_have_no_noise(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"t {n},{n / 8}\n" for n in range(20)))
    spec = TaskSpec(train=str(path))
    assert find_label_noise(load(spec, seed=0), spec) is None


def test_equal_images_with_other_labels(tmp_path: Path) -> None:
    for number in range(12):
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), number).save(file)
    shutil.copy(tmp_path / "a" / "4.png", tmp_path / "a" / "copy.png")
    assert noise_of(train=str(tmp_path)).first == ()
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "b" / "copy.png")
    noise = noise_of(train=str(tmp_path))
    assert (noise.texts, noise.rows, noise.compared) == (1, 2, 14)
    assert {(row.place, row.label, row.text) for row in noise.first[0]} == {
        ("a/0.png", "a", ""),
        ("b/copy.png", "b", ""),
    }
    described = look_at_data(
        build({"model": "none", "task": {"train": str(tmp_path)}, "method": {"name": "lora"}})
    )
    words = "1 image with different labels, in 2 of the 14 rows that were compared; one may be"
    assert f"labels: {words} wrong:\n" in described
    assert "'a' (a/0.png)" in described
    assert "'b' (b/copy.png)" in described


def test_a_text_of_a_test_folder_is_named_there(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("test", 3)):
        for number in range(2 * count):
            file = tmp_path / split / "ab"[number % 2] / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} {number}")
    (tmp_path / "test" / "b" / "5.txt").write_text("train 0")
    ((first, second),) = noise_of(train=str(tmp_path)).first
    assert first.place.endswith("train/a/0.txt")
    assert second.place.endswith("test/b/5.txt")
