"""Which rows and columns hold images, in folders and tables that are not quite in order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from iwlora.errors import IwloraError
from iwlora.inputs.images import open_image
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.columns.infer import infer_columns

pytestmark = pytest.mark.quick


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(12):
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), number).save(file)
    return tmp_path


def test_hidden_files_and_their_folders_are_no_rows(pictures: Path) -> None:
    (pictures / "a" / "._0.png").write_bytes(b"\0\5\x16\7")
    (pictures / "__MACOSX").mkdir()
    (pictures / "__MACOSX" / "._1.png").write_bytes(b"\0\5\x16\7")
    task = load(TaskSpec(train=str(pictures)), seed=0)
    assert (task.labels, sum(map(len, task.splits.values()))) == (("a", "b"), 12)


def test_what_is_missing_is_said(pictures: Path) -> None:
    with pytest.raises(IwloraError, match=r"a has images outside of folders of classes; move"):
        load(TaskSpec(train=str(pictures / "a")), seed=0)
    with pytest.raises(IwloraError, match=r"0.png: one image is no table; give the folder"):
        load(TaskSpec(train=str(pictures / "a" / "0.png")), seed=0)
    problem = "column 'image' holds images, and a task of kind regression reads texts; .* the kinds"
    with pytest.raises(IwloraError, match=f"{problem} image-classification, "):
        load(TaskSpec(train=str(pictures), kind="regression"), seed=0)
    with pytest.raises(IwloraError, match="unknown column 'label'"):
        load(TaskSpec(train=str(pictures / "a"), label="label"), seed=0)


def test_images_that_lie_too_deep_are_counted(pictures: Path) -> None:
    deep = pictures / "b" / "2024"
    deep.mkdir()
    for number in (1, 3):
        (pictures / "b" / f"{number}.png").rename(deep / f"{number}.png")
    (pictures / "c" / "d").mkdir(parents=True)
    (pictures / "a" / "0.png").rename(pictures / "c" / "d" / "0.png")
    task = load(TaskSpec(train=str(pictures)), seed=0)
    assert (task.labels, sum(map(len, task.splits.values()))) == (("a", "b"), 9)
    note = f"{pictures}: images in deeper folders are not read (b/2024 2, c/d 1)"
    assert note in task.notes
    for name in "ab":
        (pictures / "all" / name).mkdir(parents=True)
        for file in (pictures / name).glob("*.png"):
            file.rename(pictures / "all" / name / file.name)
    (pictures / "cover.png").write_bytes(next(pictures.glob("all/a/*.png")).read_bytes())
    problem = "has images outside of folders of classes"
    with pytest.raises(IwloraError, match=problem):
        load(TaskSpec(train=str(pictures)), seed=0)
    (pictures / "cover.png").unlink()
    with pytest.raises(IwloraError, match="has no images, neither in it nor in its folders"):
        load(TaskSpec(train=str(pictures)), seed=0)


def copied(pictures: Path, folder: Path) -> Path:
    for name in "ab":
        shutil.copytree(pictures / name, folder / name)
    return folder


def test_images_that_lie_too_deep_in_any_split_are_counted(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    for split in ("train", "val", "test"):
        copied(pictures, folder / split)
    for split, count in (("val", 1), ("test", 2)):
        (folder / split / "b" / "x").mkdir()
        for number in (1, 3)[:count]:
            (folder / split / "b" / f"{number}.png").rename(
                folder / split / "b" / "x" / f"{number}.png"
            )
    task = load(TaskSpec(train=str(folder)), seed=0)
    assert {name: len(rows) for name, rows in task.splits.items()} == {
        "train": 12,
        "validation": 11,
        "test": 10,
    }
    for split, count in (("val", 1), ("test", 2)):
        note = f"{folder / split}: images in deeper folders are not read (b/x {count})"
        assert task.notes.count(note) == 1


def test_what_lies_beside_the_splits_is_named(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    for split in ("Train", "test", "val2"):
        copied(pictures, folder / split)
    shutil.copy(pictures / "a" / "0.png", folder / "cover.png")
    task = load(TaskSpec(train=str(folder)), seed=0)
    assert len(task.splits["train"]) + len(task.splits["validation"]) == 12
    note = "of its folders only Train and test are read, not what lies beside (val2, cover.png)"
    assert task.notes.count(f"{folder}: {note}") == 1
    shutil.rmtree(folder / "test")
    (folder / "cover.png").unlink()
    names = "train or training; validation or valid or val or dev; test or testing"
    with pytest.raises(IwloraError, match=f"If its folders are splits, .* these names: {names}"):
        load(TaskSpec(train=str(folder)), seed=0)


def test_each_class_has_one_image(pictures: Path) -> None:
    for number in range(2, 12):
        (pictures / "ab"[number % 2] / f"{number}.png").unlink()
    problem = r"no class has two rows that differ in images, .* validation: give task\.validation"
    with pytest.raises(IwloraError, match=problem):
        load(TaskSpec(train=str(pictures)), seed=0)


def test_a_table_with_some_cells_that_are_no_images(pictures: Path) -> None:
    rows = [f"{'ab'[k % 2]}/{k}.png,{'ab'[k % 2]}" for k in range(12)]
    rows += [",a", "b/1,b", "https://example.org/1.png,a", "/etc/passwd,b"]
    (pictures / "rows.csv").write_text("\n".join(["photo,class", *rows]) + "\n")
    task = load(TaskSpec(train=str(pictures / "rows.csv"), on_bad="skip"), seed=0)
    assert (task.kind.name, task.text) == ("image-classification", ("photo",))
    assert [row.place for row in task.bad_rows] == [f"line {k}" for k in range(14, 18)]


def test_the_fields_of_an_image_are_no_labels(pictures: Path) -> None:
    rows = [
        {"image": {"bytes": None, "path": f"{'ab'[k % 2]}/{k}.png"}, "label": "ab"[k % 2]}
        for k in range(12)
    ]
    (pictures / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = infer_columns(TaskSpec(train=str(pictures / "rows.jsonl")))
    assert (columns.text, columns.label) == (("image",), ("label",))
    assert columns.alternatives["label"] == ()


@pytest.mark.parametrize(("bits", "factor"), [(12, 16), (8, 256), (14, 4), (16, 0)])
def test_images_whose_16_bits_are_not_used_are_named(
    bits: int, factor: int, tmp_path: Path
) -> None:
    """A user who does what the note says gets the image of the scanner at 8 bits."""
    values = np.linspace(0, 2**bits - 1, 20).round().astype(np.uint16).reshape(4, 5)
    for number in range(8):
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(values, number)).save(file)
    found = load(TaskSpec(train=str(tmp_path)), seed=0).notes
    notes = [note for note in found if note.startswith("images of 16 bits")]
    if not factor:
        assert notes == []
        return
    (note,) = notes
    assert note.startswith(f"images of 16 bits: 8 of 8 have no value above {2**bits - 1} of 65535")
    assert "such as 'a/0.png'" in note
    assert f"if they have {bits} bits for a pixel, multiply all values by {factor} " in note
    Image.fromarray(values * np.uint16(factor)).save(tmp_path / "mended.png")
    mended, _ = open_image((tmp_path / "mended.png").read_bytes())
    assert np.array_equal(np.asarray(mended)[..., 0], values * factor // 256)


@pytest.mark.parametrize(("image", "label"), [("img", "fine_label"), ("x", "y"), ("foto", "art")])
def test_saved_data_sets_may_name_their_columns_as_they_like(
    image: str, label: str, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = sorted(pictures.glob("?/*.png"))
    rows = {
        image: [{"bytes": file.read_bytes(), "path": None} for file in files],
        label: [int(file.parent.name == "b") for file in files],
    }
    classes = datasets.ClassLabel(names=["a class", "b class"])
    features = datasets.Features({image: datasets.Image(), label: classes})
    folder = tmp_path_factory.mktemp("saved") / "data"
    datasets.Dataset.from_dict(rows, features).save_to_disk(str(folder))
    task = load(TaskSpec(train=str(folder)), seed=0)
    assert (task.kind.name, task.text, task.labels) == (
        "image-classification",
        (image,),
        ("a class", "b class"),
    )
    of_files = load(TaskSpec(train=str(pictures)), seed=0)
    pairs = [
        {
            (digest, label)
            for split in one.splits.values()
            for digest, label in zip(split[one.text[0]], split["label"], strict=True)
        }
        for one in (task, of_files)
    ]
    assert pairs[0] == pairs[1]
