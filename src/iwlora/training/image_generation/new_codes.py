"""A codebook for the user's images, and a new model that reads its codes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError, unknown
from iwlora.extras import name_missing_extra
from iwlora.image_tokens.codebook import Codebook
from iwlora.image_tokens.codebooks.patch_kmeans import fit_codebook
from iwlora.image_tokens.codebooks.vq_model import DARKEST, VqCodebook
from iwlora.image_tokens.new_model import Order, save_new_model
from iwlora.inputs.places import user_path
from iwlora.inputs.tables.records import columns_of, read_records
from iwlora.results.writing import follow_umask, new_folder_path, whole_folder
from iwlora.tasks.columns.images import image_column
from iwlora.tasks.columns.infer import SAMPLE_ROWS, Columns
from iwlora.tasks.columns.parsed_file import parse_file
from iwlora.tasks.kinds.contract import IMAGE
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from iwlora.tasks.kinds.images.tokens import ImageTokens
from iwlora.tasks.splits import in_memory


@name_missing_extra()
def make_codes(
    pictures: str | Path | None,
    to: str | Path,
    *,
    vq: str | Path | None = None,
    codes: int | None = None,
    patch: int | None = None,
    size: int | None = None,
    darkest: int | None = None,
    order: Order = "masked",
    width: int = 96,
    blocks: int = 3,
    heads: int = 4,
    seed: int = 0,
    column: str | None = None,
) -> Path:
    """Write a codebook, and a new model of its codes.

    The codebook fits some images, or is a trained VQ model.

    The model has random weights: a run of the method ``full`` trains it, and ``iwlora export`` of
    this run is a model that other runs start from.

    Args:
        pictures: A folder of images, or a table with a column of images; of a folder with splits
            the training images. None with ``vq``.
        to: The folder to write.
        vq: The folder of a trained VQ model, in place of images.
        codes: The number of codes; None: 128. A VQ model has its own.
        patch: The width and height of the patch of a code, in pixels; None: 4.
        size: The width and height to which images are scaled, in pixels; None: 28. A VQ model needs
            it.
        darkest: What black is for a VQ model, white being 1: -1 or 0; None: -1.
        order: masked: a model of BERT's type, which predicts masked codes; next-code: of GPT-2's.
        width: Of a hidden state.
        blocks: Their number.
        heads: Of attention.
        seed: Of the codebook and of the weights.
        column: Of the images in a table; None: found, where it is obvious.

    Returns:
        ``to`` as a path.

    Raises:
        IwloraError: An image cannot be read or is not square, a number is impossible, or something
            is in the folder already.
    """
    target = new_folder_path(to)
    fitted = {"images": pictures, "--codes": codes, "--patch": patch, "--image": column}
    _check_source(fitted, {"--vq": vq, "--darkest": darkest}, size)
    codebook: Codebook
    if vq is not None and size is not None:
        codebook = VqCodebook(user_path(str(vq)), size, DARKEST[0] if darkest is None else darkest)
    else:
        images = (open_row(row) for row in _rows(str(pictures), column))
        numbers = {"codes": codes or 128, "patch": patch or 4, "size": size or 28}
        codebook = fit_codebook(images, **numbers, seed=seed)
    with whole_folder(target) as folder:
        save_new_model(
            codebook, folder, order=order, width=width, blocks=blocks, heads=heads, seed=seed
        )
        follow_umask(folder)
    return target


def _check_source(fitted: Mapping[str, Any], trained: Mapping[str, Any], size: int | None) -> None:
    """Refuse options that do not go together."""
    of_images = [name for name, value in fitted.items() if value is not None]
    of_network = [name for name, value in trained.items() if value is not None]
    if "--vq" not in of_network and "images" not in of_images:
        raise IwloraError("neither images nor --vq was given; a codebook is made of one of them")
    if of_images and of_network:
        raise IwloraError(
            f"{', '.join(of_images)} and {', '.join(of_network)} were given together: a codebook "
            "fits images, or is a trained VQ model; leave one out"
        )
    if of_network and size is None:
        raise IwloraError("--vq needs --size, the width and height of images in pixels")


def _rows(pictures: str, column: str | None) -> Any:
    """The images of a folder or a table, as :func:`open_row` takes them."""
    names = columns_of(pictures)
    if column is not None and column not in names:
        raise IwloraError(f"{pictures}: {unknown('column', column, names)}")
    column = column or _image_column(pictures, names)
    parsed = parse_file(pictures, Columns(ImageTokens(), (column,), (), unlabeled=True), "train")
    return in_memory(parsed.rows).select_columns([column, IMAGE]).rename_column(column, DIGEST)


def _image_column(pictures: str, names: list[str]) -> str:
    first = [values for _, values in islice(read_records(pictures, names, []), SAMPLE_ROWS)]
    found = image_column(names, dict(zip(names, zip(*first, strict=True), strict=False)))
    if found is None:
        raise IwloraError(
            f"{pictures} has no column of images (columns: {', '.join(names)}); give the folder "
            "with the images, or --image COLUMN"
        )
    return found
