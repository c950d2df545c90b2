from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from image_drawings import drawn, small_codebook
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import FILE
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.codebooks.patches import PatchCodebook


def random_codebook(channels: int, seed: int = 0) -> PatchCodebook:
    random = np.random.default_rng(seed)
    return PatchCodebook(random.integers(0, 256, (20, 3, 3, channels), dtype=np.uint8), side=5)


@pytest.mark.quick
@pytest.mark.parametrize("channels", [1, 3])
def test_the_codes_of_a_decoded_image_are_those_it_was_made_of(channels: int) -> None:
    codebook, random = random_codebook(channels), np.random.default_rng(1)
    for _ in range(20):
        codes = random.integers(0, 20, 25).tolist()
        image = codebook.decode(codes)
        assert image.shape == (15, 15, 3)
        assert codebook.encode(image) == codebook.encode(Image.fromarray(image)) == codes


def test_a_patch_becomes_the_nearest_code_the_first_of_equals() -> None:
    codebook = random_codebook(3)
    pixels = np.random.default_rng(2).integers(0, 256, (15, 15, 3), dtype=np.uint8)
    slow = []
    for row in range(0, 15, 3):
        for column in range(0, 15, 3):
            patch = pixels[row : row + 3, column : column + 3].astype(int)
            distances = [int(((patch - code) ** 2).sum()) for code in codebook.patches.astype(int)]
            slow.append(distances.index(min(distances)))
    assert codebook.encode(pixels) == slow
    between = PatchCodebook(np.array([[[[2]]], [[[0]]]], np.uint8), side=1)
    assert between.encode(np.ones((1, 1, 3), np.uint8)) == [0]


def test_a_file_keeps_the_codebook_and_other_codebooks_have_another_digest(tmp_path: Path) -> None:
    codebook = small_codebook()
    codebook.save_pretrained(tmp_path / "new")
    loaded = load_codebook(tmp_path / "new")
    assert loaded.digest == codebook.digest
    assert loaded.encode(drawn(5, True)) == codebook.encode(drawn(5, True))
    others = [
        PatchCodebook(codebook.patches[::-1].copy(), codebook.side),
        PatchCodebook(codebook.patches, codebook.side + 1),
    ]
    assert len({codebook.digest, *(other.digest for other in others)}) == 3


def test_bad_codes_images_and_files_are_refused(tmp_path: Path) -> None:
    codebook = small_codebook()
    for codes, problem in (([0] * 8, "8 codes were given"), ([0] * 8 + [12], "another codebook")):
        with pytest.raises(IwloraError, match=problem):
            codebook.decode(codes)
    with pytest.raises(IwloraError, match="8 × 9 pixels, which is not square"):
        codebook.encode(Image.new("RGB", (8, 9)))
    with pytest.raises(IwloraError, match=f"has no {FILE}"):
        load_codebook(tmp_path)
    patches = codebook.patches
    for tensors, side, problem in (
        ({"codes": patches.astype(np.float32)}, "3", "type float32"),
        ({"codes": patches[:1]}, "3", "1 codes; accepted"),
        ({"codes": np.concatenate([patches, patches[:1]])}, "3", "two equal patches"),
        ({"codes": patches[:, :, :2].copy()}, "3", "accepted: squares"),
        ({"codes": patches}, "0", "0 patches along"),
        ({"codes": patches}, "9" * 5000, "is no codebook"),
        ({"weights": patches}, "3", "is no codebook"),
    ):
        save_file(tensors, tmp_path / FILE, metadata={"side": side})
        with pytest.raises(IwloraError, match=problem):
            load_codebook(tmp_path)
    (tmp_path / FILE).write_bytes(b"\x00" * 20)
    with pytest.raises(IwloraError, match="is damaged"):
        load_codebook(tmp_path)
