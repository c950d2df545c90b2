"""A run on images, from a folder to predictions and an export that other tools load."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

import iwlora
from interruptions import Killed, kill_at
from iwlora.compare.report.write import write_report
from iwlora.errors import BadRowsError, IwloraError
from iwlora.inputs.images import open_image
from iwlora.methods.tiny_models import tiny_model
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.kinds.contract import IMAGE
from iwlora.tasks.kinds.images import collator
from iwlora.training.floors.frozen_model import mean_features
from iwlora.training.suggestion.look import look_at_data
from iwlora.training.suggestion.recipe import suggest, suggest_for_task
from runs import predictions, recipe, weights
from tiny_images import draw, save_tiny_vit


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for split, count in (("train", 16), ("validation", 6)):
        for number in range(2 * count):
            name = "disc" if number % 2 else "square"
            number += 1000 * (split == "train")
            draw(folder / split / name / f"{number}.png", number, bool(number % 2))
    (folder / "train" / "disc" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vit(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture(scope="module")
def run(shapes: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    asked = recipe(tiny_vit, task_of(shapes), "lora", epochs=2, lr=5e-3)
    result = iwlora.train(asked, folder)
    assert result["left_out_rows"] == {"train": 1}
    assert result["labels"] == ["disc", "square"]
    return folder


def task_of(shapes: Path) -> dict[str, Any]:
    return {"train": str(shapes), "kind": {"name": "image-classification"}, "on_bad": "skip"}


def test_a_bad_image_is_refused_skipped_or_reported(shapes: Path) -> None:
    for on_bad in ("refuse", "report"):
        with pytest.raises(BadRowsError, match=r"train/disc/broken.png: column 'image' names"):
            load(TaskSpec(train=str(shapes), on_bad=on_bad), seed=0)
    task = load(TaskSpec(train=str(shapes), on_bad="skip"), seed=0)
    assert {name: len(rows) for name, rows in task.splits.items()} == {
        "train": 32,
        "validation": 12,
    }
    assert (task.kind.name, task.labels) == ("image-classification", ("disc", "square"))


def test_images_that_cannot_be_predicted_are_left_out_if_asked(
    run: Path, shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, output = tmp_path / "new", tmp_path / "p.csv"
    shutil.copytree(shapes / "validation" / "disc", folder)
    shutil.copytree(shapes / "validation" / "square", folder / "deeper")
    (folder / "5.png").write_bytes(b"no image")
    with pytest.raises(IwloraError, match="no row was predicted; --on-bad skip"):
        iwlora.predict(run, folder, output)
    assert not output.exists()
    iwlora.predict(run, folder, output, on_bad="skip")
    known = {Path(row["image"]).name: row["prediction"] for row in predictions(run)}
    lines = [line.split(",") for line in output.read_text().splitlines()]
    column = {name: place for place, name in enumerate(lines[0])}
    found = {row[column["image"]]: row[column["prediction"]] for row in lines[1:]}
    names = [f"{number}.png" for number in (1, 11, 3, 7, 9)]
    assert [*found] == names
    assert found == {name: known[name] for name in names}
    assert "5.png" in (tmp_path / "p.bad-rows.csv").read_text()
    assert "1 row cannot be read and has no prediction" in caplog.text
    assert "images in deeper folders are not read (deeper 6)" in caplog.text
    for file in folder.glob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(IwloraError, match="none of its rows can be used"):
        iwlora.predict(run, folder, output, on_bad="skip")


def test_predictions_and_the_exports_agree(run: Path, shapes: Path, tmp_path: Path) -> None:
    stored = predictions(run)
    assert stored[0]["image"] == "validation/disc/1.png"
    output = iwlora.predict(run, shapes / "validation", tmp_path / "p.csv").read_text()
    assert [line.split(",")[5] for line in output.splitlines()[1:]] == [
        row["prediction"] for row in stored
    ]
    expected = torch.tensor(
        [[float(row[f"logit_{k}"]) for k in ("disc", "square")] for row in stored]
    )
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    iwlora.export(run, adapter)
    iwlora.export(run, merged, merge=True)
    whole = AutoModelForImageClassification.from_pretrained(merged).eval()
    assert whole.config.id2label == {0: "disc", 1: "square"}
    base = AutoModelForImageClassification.from_pretrained(
        iwlora.load_recipe(run / "recipe.yaml").model, num_labels=2, ignore_mismatched_sizes=True
    )
    of_peft = PeftModel.from_pretrained(base, adapter).eval()
    for model, folder in ((whole, merged), (of_peft, adapter)):
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        images = [Image.open(shapes / row["image"]).convert("RGB") for row in stored]
        with torch.inference_mode():
            logits = model(**processor(images, return_tensors="pt")).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_report_shows_small_images_of_the_errors(
    run: Path, shapes: Path, tmp_path: Path
) -> None:
    rows = predictions(run)
    wrong = {number for number, row in enumerate(rows) if row["label"] != row["prediction"]}
    kept = {int(file.stem.removeprefix("error-")): file for file in run.glob("predictions/*.jpg")}
    assert kept.keys() <= wrong
    assert len(kept) == min(len(wrong), 5)
    assert kept, "the task is too easy for this test"
    shutil.copytree(run, tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    for number, file in kept.items():
        image, whole = Image.open(file), Image.open(shapes / rows[number]["image"]).convert("RGB")
        assert image.size == whole.size  # which is small already
        assert abs(np.asarray(image).astype(int) - np.asarray(whole)).mean() < 12
        assert not image.getexif()
        assert base64.b64encode(file.read_bytes()).decode() in page
        classes = f"{rows[number]['label']}, predicted {rows[number]['prediction']}"
        assert f"lora, row {number}: {classes}" in page
    assert "Most confident errors" in page


@pytest.mark.quick  # with the oldest versions too
def test_augmented_training_resumes_to_the_bit(
    shapes: Path, tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"name": "image-classification", "augmentation": "randaugment"}
    task = {**task_of(shapes), "kind": kind, "max_validation": 2}
    asked = recipe(tiny_vit, task, "lora", epochs=2, lr=5e-3, batch_size=8, save_steps=3)
    iwlora.train(asked, tmp_path / "whole")
    with monkeypatch.context() as patched:
        kill_at(7, patched)
        with pytest.raises(Killed):
            iwlora.train(asked, tmp_path / "resumed")
    assert iwlora.train(asked, tmp_path / "resumed")["resumed_at_step"] == 6
    whole, resumed = (weights(tmp_path / name) for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    plain = recipe(
        tiny_vit, {**task, "kind": kind["name"]}, "lora", epochs=2, lr=5e-3, batch_size=8
    )
    iwlora.train(plain, tmp_path / "plain")
    assert any(not torch.equal(whole[n], w) for n, w in weights(tmp_path / "plain").items())


@pytest.mark.parametrize("architecture", ["vit", "convnext"])
def test_the_linear_probe_is_of_mean_features(architecture: str, tiny_vit: Path) -> None:
    task = load(TaskSpec(name="builtin/shapes", max_train=40, max_test=10), seed=0)
    model = tiny_model(architecture)
    processor = AutoImageProcessor.from_pretrained(tiny_vit, backend="pil")
    asked = recipe(tiny_vit, {"name": "builtin/shapes"}, "lora")
    features = mean_features(asked, task, model, processor, task.splits["test"])
    images = [open_image(row["bytes"])[0] for row in task.splits["test"][IMAGE]]
    with torch.inference_mode():
        hidden = model.base_model(**processor(images, return_tensors="pt"))[0]
    expected = hidden.flatten(2).mean(2) if architecture == "convnext" else hidden.mean(1)
    torch.testing.assert_close(torch.from_numpy(features), expected, rtol=1e-5, atol=1e-6)


def test_the_linear_probe_reads_images_that_runs_have_kept(
    tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load(TaskSpec(name="builtin/shapes", max_train=8, max_test=4), seed=0)
    model = tiny_model("vit")
    processor = AutoImageProcessor.from_pretrained(tiny_vit, backend="pil")
    asked, rows = recipe(tiny_vit, {"name": "builtin/shapes"}, "lora"), task.splits["test"]
    opening = mean_features(asked, task, model, processor, rows)
    keeping = mean_features(asked, task, model, processor, rows, images=tmp_path)
    opened: list[Any] = []
    monkeypatch.setattr(collator, "open_row", opened.append)
    kept = mean_features(asked, task, model, processor, rows, images=tmp_path)
    assert not opened
    assert np.array_equal(opening, keeping)
    assert np.array_equal(opening, kept)


def test_an_image_that_changes_is_noticed(run: Path, shapes: Path) -> None:
    path = shapes / "validation" / "disc" / "1.png"
    before = path.read_bytes()
    try:
        draw(path, 5, True)
        with pytest.raises(IwloraError, match="its inputs changed since it began: "):
            iwlora.train(iwlora.load_recipe(run / "recipe.yaml"), run)
    finally:
        path.write_bytes(before)


def test_a_table_names_images_and_a_copy_is_found(shapes: Path, tiny_vit: Path) -> None:
    rows = [f"train/disc/{n}.png,1.{n % 7}" for n in range(1001, 1032, 2)]
    table = shapes / "sizes.csv"
    table.write_text("\n".join(["photo,radius", *rows, "train/square/1000.png,0.5"]) + "\n")
    (shapes / "test.csv").write_text("photo,radius\ntrain/disc/1001.png,2\n../out.png,2\n")
    spec = {"train": str(table), "test": str(shapes / "test.csv"), "on_bad": "skip"}
    task = load(TaskSpec(**spec), seed=0)
    assert (task.kind.name, task.text) == ("image-regression", ("photo",))
    assert "leads out of" in str(task.bad_rows[0])
    described = look_at_data(recipe(tiny_vit, spec, "lora"))
    assert "test: 1 of 1 rows have the image of a training row" in described
    assert "modes    RGB 15; all are read as RGB" in described


def test_a_contact_sheet_has_the_images_of_each_class(
    shapes: Path, tiny_vit: Path, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    look_at_data(recipe(tiny_vit, task_of(shapes), "lora"), sheet)
    picture = Image.open(sheet)
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    cells = [
        pixels[8 + r * 122 + 18 :][:96, 8 + c * 104 :][:, :96] for r in (0, 1) for c in range(10)
    ]
    assert picture.size == (1048, 252)
    for cell in cells:  # a dark image in the middle of white, its shape bright
        assert (cell[0, 0] == 255).all()
        assert cell[36:60, 36:60].mean(axis=-1).min() < 60
    assert picture.info == {}
    with pytest.raises(IwloraError, match="has no images for a contact sheet"):
        look_at_data(recipe(tiny_bert, reviews, "lora"), tmp_path / "none.png")


def test_a_recipe_is_suggested_for_a_folder(shapes: Path, tiny_vit: Path) -> None:
    with pytest.raises(IwloraError, match=r"comes with no pretrained model of images. Give model="):
        suggest(str(shapes))
    suggested = suggest(str(shapes), [f"model={tiny_vit}", "task.on_bad=skip"])
    assert suggested.settings == {
        "model": str(tiny_vit),
        "task": {
            "train": str(shapes),
            "text": "image",
            "label": "label",
            "kind": "image-classification",
            "on_bad": "skip",
        },
        "method": {"name": "lora", "rank": 8, "lora_alpha": 16},
        "train": {"epochs": 10, "lr": 1e-3, "batch_size": 16},
    }
    assert suggested.reasons["task.train"] == "32 rows to train on, 12 to score (validation)"
    named = suggest_for_task("builtin/shapes", [f"model={tiny_vit}", "task.max_train=50"])
    assert named.settings["train"] == suggested.settings["train"]


def test_a_list_with_a_path_and_a_number_on_each_line(shapes: Path) -> None:
    """As the lists of VTAB: no header, and a space between the two."""
    names = [f"train/disc/{n}.png" for n in range(1001, 1032, 2)]
    names += [f"train/square/{n}.png" for n in range(1000, 1032, 2)]
    lines = [f"{name} {number % 8}" for number, name in enumerate(names)]
    (shapes / "train800val200.txt").write_text("\n".join(lines) + "\n")
    spec = {"train": str(shapes / "train800val200.txt"), "delimiter": " ", "header": False}
    task = load(TaskSpec(**spec), seed=0)
    assert (task.kind.name, task.text) == ("image-classification", ("column1",))
    assert task.labels == tuple("01234567")
    assert sum(map(len, task.splits.values())) == len(names)


def test_embedded_images_of_a_saved_data_set(shapes: Path, tmp_path: Path) -> None:
    import datasets

    folder = shapes / "train"
    files = sorted((*folder.glob("square/*"), *folder.glob("disc/1*")))
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [int(file.parent.name == "disc") for file in files],
    }
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["square", "disc"])
    )
    dataset = datasets.Dataset.from_dict(rows, features)
    dataset.save_to_disk(str(tmp_path / "saved"))
    dataset.to_parquet(str(tmp_path / "rows.parquet"))
    of_files = load(TaskSpec(train=str(shapes), on_bad="skip"), seed=0)
    for name in ("saved", "rows.parquet"):
        task = load(TaskSpec(train=str(tmp_path / name), label="label"), seed=0)
        assert task.kind.name == "image-classification"
        digests = {*task.splits["train"]["image"], *task.splits["validation"]["image"]}
        assert digests == set(of_files.splits["train"]["image"])


def test_models_and_data_must_fit(
    shapes: Path, tiny_vit: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    augmented = {"name": "image-classification", "augmentation": "flip-and-crop"}
    for model, kind, options, problem in (
        (tiny_bert, {}, {}, "no AutoModelForImageClassification of this type"),
        (tiny_vit, {"kind": augmented}, {"cache_frozen": True}, "other training images in each"),
        (tiny_vit, {}, {"cache_frozen": 1}, "lora trains in or below block 0"),
    ):
        asked = recipe(model, task_of(shapes) | kind, "lora", epochs=1, **options)
        with pytest.raises(IwloraError, match=problem):
            iwlora.train(asked, tmp_path / problem[:9])
