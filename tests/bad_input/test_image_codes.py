"""What users may give ``iwlora train`` for codes of images, and what it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from commands import call, check_plain
from image_drawings import save_images, save_model
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.codebooks.patch_kmeans import fit_codebook

RECIPE = """
model: {model}
task: {{train: {images}, kind: image-tokens}}
method: {{name: prompt-generator, tokens: 2}}
train: {{epochs: 1, batch_size: 8}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    images = save_images(tmp_path / "images", train=2, validation=1)
    model = save_model(tmp_path / "model")
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE.format(model=model, images=images), encoding="utf-8")
    return file


def refused(
    capsys: pytest.CaptureFixture[str], recipe: Path, problems: list[str], *overrides: str
) -> None:
    out = recipe.parent / "out"
    outcome = call(capsys, "train", recipe, *overrides, "--out", out)
    assert outcome.code == 2, outcome
    check_plain(outcome)
    for problem in problems:
        assert problem in outcome.err, outcome.err
    assert not (out / "result.json").exists()


def test_settings(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        capsys,
        recipe,
        ["method.tokens=0", "train.betas.0=1.0", "train.lr=0.0"],
        *("method.tokens=0", "train.betas=[1.0, 0.9]", "train.lr=0.0"),
    )
    refused(capsys, recipe, ["method.instances=4"], "method.instances=4")
    refused(
        capsys,
        recipe,
        ["train.optimizer=adafactor, which has no such moments"],
        *("train.betas=[0.9, 0.96]", "train.optimizer=adafactor"),
    )
    refused(
        capsys,
        recipe,
        ["is of kind classification"],
        "task={name: builtin/entailment, kind: image-tokens}",
    )


def test_images(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = recipe.parent / "images" / "train" / "disc"
    (folder / "torn.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (8, 4)).save(folder / "wide.png")
    refused(capsys, recipe, ["torn.png", "wide.png", "of 8 × 4 pixels, which is not square"])


def test_another_codebook(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = recipe.parent / "model"
    image = Image.linear_gradient("L").convert("RGB")
    fit_codebook([image], codes=3, patch=4, size=12).save_pretrained(model)
    assert load_codebook(model).count == 3
    refused(capsys, recipe, ["the codes are of another codebook"])
    (model / "codes.safetensors").unlink()
    refused(capsys, recipe, ["has no codes.safetensors"])
