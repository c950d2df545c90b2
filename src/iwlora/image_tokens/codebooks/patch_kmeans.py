"""k-means of patches: the codebook that fits a collection of images, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError, raise_all
from iwlora.image_tokens.codebook import MOST_CODES, MOST_TOKENS, Pixels, pixels_of
from iwlora.image_tokens.codebooks.patches import PatchCodebook, nearest, patches_of

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PATCHES = 100_000
"""Of all images; of more, so many are drawn."""
_MOST_ROUNDS = 50


def fit_codebook(
    images: Iterable[Image], *, codes: int, patch: int, size: int, seed: int = 0
) -> PatchCodebook:
    """The codebook whose patches are the k-means of the patches of some images.

    min Σ_x min_k |x - v_k|² by Lloyd's rounds from the start of k-means++. Each v_k is rounded to
    whole numbers in each round, so that all sums are exact: the same images and seed give the same
    codebook on every machine.

    Args:
        images: Square images in RGB, of any sizes. If all are gray, so is the codebook.
        codes: K, the number of codes.
        patch: The width and height of a patch, in pixels.
        size: The width and height to which images are scaled, in pixels: a multiple of ``patch``.
        seed: Seeds the start, and the choice of patches where there are very many.

    Raises:
        IwloraError: An image is not square, a number is impossible, or the images have fewer
            different patches than ``codes``.

    Source:
        Arthur and Vassilvitskii 2007, k-means++: the advantages of careful seeding.

    Example:
        >>> from PIL import Image
        >>> images = [Image.linear_gradient("L").convert("RGB")]
        >>> fit_codebook(images, codes=3, patch=4, size=32).decode([0] * 64).shape
        (32, 32, 3)
    """
    _check(codes, patch, size)
    cut = [patches_of(pixels_of(image, size, 3), patch) for image in images]
    if not cut:
        raise IwloraError("no image was given, and a codebook is made from images")
    whole = np.concatenate(cut)
    if (whole == whole[..., :1]).all():
        whole = whole[..., :1]
    random = np.random.default_rng(seed)
    if len(whole) > MOST_PATCHES:
        whole = whole[np.sort(random.choice(len(whole), MOST_PATCHES, replace=False))]
    rows = whole.reshape(len(whole), -1)
    different = len(np.unique(rows, axis=0))
    if different < codes:
        raise IwloraError(
            f"codes={codes}: the images have only {different:,} different patches of {patch} × "
            f"{patch} pixels; give fewer codes, or more images"
        )
    found = _lloyd(rows, _start(rows, codes, random))
    return PatchCodebook(found.reshape(codes, *whole.shape[1:]), size // patch)


def _check(codes: int, patch: int, size: int) -> None:
    problems = []
    if not 2 <= codes <= MOST_CODES:
        problems.append(f"codes={codes}; accepted: 2 to {MOST_CODES:,}")
    if patch < 1 or size < patch or size % patch:
        problems.append(
            f"size={size} and patch={patch}: the size must be a multiple of that of the patches"
        )
    elif (size // patch) ** 2 > MOST_TOKENS:
        problems.append(
            f"size={size} and patch={patch} give {(size // patch) ** 2:,} codes for an image; "
            f"accepted: at most {MOST_TOKENS:,}"
        )
    raise_all(problems)


def _start(rows: Pixels, codes: int, random: np.random.Generator) -> Pixels:
    """The first patches: each is drawn by its squared distance to those before it."""
    chosen = [int(random.integers(len(rows)))]
    distances = nearest(rows, rows[chosen])[1]
    while len(chosen) < codes:
        # A patch that is chosen already has distance 0 and is not drawn again.
        total = np.cumsum(distances)
        place = int(np.searchsorted(total, random.uniform(0, total[-1]), side="right"))
        chosen.append(min(place, int(np.flatnonzero(distances)[-1])))
        distances = np.minimum(distances, nearest(rows, rows[chosen[-1:]])[1])
    return rows[chosen]


def _lloyd(rows: Pixels, codes: Pixels) -> Pixels:
    """Rounds of means and nearest patches until nothing changes."""
    for _ in range(_MOST_ROUNDS):
        found, distances = nearest(rows, codes)
        moved = _without_copies(_means(rows, found, codes), rows, distances)
        if (moved == codes).all():
            break
        codes = moved
    return codes


def _means(rows: Pixels, found: npt.NDArray[Any], codes: Pixels) -> Pixels:
    """The rounded mean of the patches of each code; a code without patches stays."""
    counts = np.bincount(found, minlength=len(codes))[:, None]
    sums = np.zeros(codes.shape, np.int64)
    np.add.at(sums, found, rows)
    means = (2 * sums + counts) // np.maximum(2 * counts, 1)
    return np.where(counts > 0, means, codes).astype(np.uint8)


def _without_copies(codes: Pixels, rows: Pixels, distances: npt.NDArray[Any]) -> Pixels:
    """Codes that have become equal to an earlier one are replaced by the farthest patches."""
    _, first = np.unique(codes, axis=0, return_index=True)
    copies = np.setdiff1d(np.arange(len(codes)), first)
    if not len(copies):
        return codes
    codes, taken = codes.copy(), {bytes(codes[place]) for place in first}
    farthest = (place for place in np.argsort(-distances, kind="stable"))
    for copy in copies:
        codes[copy] = next(rows[place] for place in farthest if bytes(rows[place]) not in taken)
        taken.add(bytes(codes[copy]))
    return codes
