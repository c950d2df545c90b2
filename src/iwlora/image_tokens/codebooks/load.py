"""The codebook in a folder, of either kind."""

from __future__ import annotations

from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import FILE, NETWORK, Codebook
from iwlora.image_tokens.codebooks.patches import PatchCodebook
from iwlora.image_tokens.codebooks.vq_model import VqCodebook
from iwlora.inputs.places import user_path


def load_codebook(folder: str | Path) -> Codebook:
    """The codebook in the folder of a model, or in ``codes/`` of a run.

    Raises:
        IwloraError: There is none, or its files are damaged.
    """
    place = user_path(str(folder))
    if (place / NETWORK).is_dir():
        return VqCodebook.in_folder(place / NETWORK)
    if (place / FILE).is_file():
        return PatchCodebook.in_file(place / FILE)
    raise IwloraError(
        f"{folder} has no {FILE} and no {NETWORK}, which say what the codes of an image are; "
        "'iwlora codes' makes one of a folder of images, or of a trained VQ model"
    )
