from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from image_drawings import drawn
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import pixels_of
from iwlora.image_tokens.codebooks.patch_kmeans import fit_codebook
from iwlora.image_tokens.codebooks.patches import nearest, patches_of


def noisy(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))


@pytest.mark.quick
def test_each_code_is_the_rounded_mean_of_its_patches() -> None:
    images = [drawn(number, bool(number % 2)) for number in range(40)]
    codebook = fit_codebook(images, codes=6, patch=4, size=12, seed=3)
    assert codebook.patches.shape == (6, 4, 4, 1)  # all images are gray
    rows = np.concatenate(
        [patches_of(pixels_of(image, 12, 1), 4).reshape(9, -1) for image in images]
    )
    codes = codebook.patches.reshape(6, -1)
    found, distances = nearest(rows, codes)
    assert distances.tolist() == [min(((row - codes.astype(int)) ** 2).sum(1)) for row in rows]
    for code in range(6):
        assert np.abs(rows[found == code].mean(0) - codes[code]).max() <= 0.5


def test_the_seed_alone_decides_and_another_one_gives_other_codes() -> None:
    images = [noisy(seed) for seed in range(4)]
    one, same, other = (fit_codebook(images, codes=8, patch=4, size=16, seed=s) for s in (0, 0, 1))
    assert one.digest == same.digest != other.digest
    assert one.patches.shape == (8, 4, 4, 3)


def test_as_many_codes_as_there_are_different_patches_keep_the_images() -> None:
    image = noisy(0)
    codebook = fit_codebook([image, image], codes=16, patch=4, size=16)
    assert (codebook.decode(codebook.encode(image)) == np.asarray(image)).all()
    with pytest.raises(IwloraError, match="codes=17: the images have only 16 different patches"):
        fit_codebook([image, image], codes=17, patch=4, size=16)


def test_impossible_numbers_are_refused() -> None:
    for numbers, problem in (
        ({"codes": 1, "patch": 4, "size": 16}, "codes=1; accepted: 2 to"),
        ({"codes": 4, "patch": 5, "size": 16}, "must be a multiple"),
        ({"codes": 4, "patch": 1, "size": 1024}, "1,048,576 codes for an image"),
    ):
        with pytest.raises(IwloraError, match=problem):
            fit_codebook([noisy(0)], **numbers)
    with pytest.raises(IwloraError, match="no image was given"):
        fit_codebook([], codes=4, patch=4, size=16)
