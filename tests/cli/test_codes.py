"""``iwlora codes``: a codebook and a new model of its codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import call, check_plain
from image_drawings import save_images
from iwlora.image_tokens.codebooks.load import load_codebook

SMALL = ("--codes=12", "--patch=4", "--size=12", "--width=8", "--heads=1", "--blocks=1")


@pytest.mark.quick
def test_codes_and_a_model_are_made_of_a_folder_or_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = save_images(tmp_path / "images", train=6, validation=2)
    table = images / "paths.csv"
    files = sorted(path.relative_to(images) for path in (images / "train").rglob("*.png"))
    table.write_text("\n".join(["photo", *map(str, files)]) + "\n", encoding="utf-8")
    made = []
    for source in (images, table):
        folder = tmp_path / f"of-{source.name}"
        assert call(capsys, "codes", source, "--out", folder, *SMALL).out == f"{folder}\n"
        made.append(load_codebook(folder))
        assert {file.name for file in folder.iterdir()} == {
            *("codes.safetensors", "config.json", "model.safetensors")
        }
    assert made[0].digest == made[1].digest
    other = call(capsys, "codes", images, "--out", tmp_path / "other", *SMALL, "--seed=1")
    assert other.code == 0
    assert load_codebook(tmp_path / "other").digest != made[0].digest


def test_what_makes_no_codebook_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = save_images(tmp_path / "images", train=2, validation=1)
    table = images / "names.csv"
    table.write_text("name\none\n", encoding="utf-8")
    (images / "train" / "disc" / "torn.png").write_bytes(b"\x89PNG")
    for source, options, problem in (
        (table, (), "has no column of images"),
        (table, ("--image", "photo"), "unknown column 'photo'"),
        (tmp_path / "none", (), str(tmp_path / "none")),
        (images, SMALL, "torn.png"),
    ):
        refused = call(capsys, "codes", source, "--out", tmp_path / "new", *options)
        assert refused.code == 2
        check_plain(refused)
        assert problem in refused.err
        assert not (tmp_path / "new").exists()
    (images / "train" / "disc" / "torn.png").unlink()
    refused = call(capsys, "codes", images, "--out", tmp_path / "new", "--patch=5")
    assert "must be a multiple" in refused.err
    refused = call(capsys, "codes", images, "--out", images)
    assert "exists and is not an empty folder" in refused.err
