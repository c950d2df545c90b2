"""A codebook for the user's images, and a new model that reads its codes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError, unknown
from iwlora.extras import name_missing_extra
from iwlora.image_tokens.new_model import Order, save_new_model
from iwlora.image_tokens.patch_kmeans import fit_codebook
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
    pictures: str | Path,
    to: str | Path,
    *,
    codes: int = 128,
    patch: int = 4,
    size: int = 28,
    order: Order = "masked",
    width: int = 96,
    blocks: int = 3,
    heads: int = 4,
    seed: int = 0,
    column: str | None = None,
) -> Path:
    """Write a codebook that fits some images, and a new model of its codes.

    The model has random weights: a run of the method ``full`` trains it, and ``iwlora export`` of
    this run is a model that other runs start from.

    Args:
        pictures: A folder of images, or a table with a column of images; of a folder with splits
            the training images.
        to: The folder to write.
        codes: The number of codes.
        patch: The width and height of the patch of a code, in pixels.
        size: The width and height to which images are scaled, in pixels.
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
    rows = _rows(str(pictures), column)
    images = (open_row(row) for row in rows)
    codebook = fit_codebook(images, codes=codes, patch=patch, size=size, seed=seed)
    with whole_folder(target) as folder:
        save_new_model(
            codebook, folder, order=order, width=width, blocks=blocks, heads=heads, seed=seed
        )
        follow_umask(folder)
    return target


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
