"""A few images that a run has learned to generate, kept for its report."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from iwlora import distributed
from iwlora.image_tokens.decoding import Codes
from iwlora.results import layout
from iwlora.results.writing import replacing
from iwlora.training.device import run_device
from iwlora.training.image_generation.generate import contact_sheet, generate_codes
from iwlora.training.image_generation.request import Request, completed
from iwlora.training.kernels import training_numerics
from iwlora.training.load import LoadedRecipe

MOST = 16
"""Images of a run: of as many classes, in their order."""
_SIDE, _QUALITY = 56, 90  # pixels of an image at least


def write_samples(run: Path, model: Any, loaded: LoadedRecipe) -> None:
    """Keep a sheet of generated images, if the kind of task is one of codes.

    They are those that ``iwlora generate`` makes first with its defaults. Runs of several
    processes keep none.

    Args:
        run: The folder of the run.
        model: The trained model.
        loaded: What the recipe names.
    """
    task, codebook, settings = loaded.task, loaded.processor, loaded.recipe.train
    if task.kind.processor != "codes" or distributed.world_size() > 1:
        return
    request = completed(Request(count=MOST, classes=task.labels), model.config, codebook)
    was_training = model.training
    with (
        torch.inference_mode(),
        training_numerics(
            model.eval(), settings.fast_kernels, settings.requested_precision, run_device()
        ),
    ):
        codes: Codes = generate_codes(model, codebook, request, task.labels)
    model.train(was_training)
    sheet = Image.fromarray(contact_sheet([codebook.decode(row.tolist()) for row in codes]))
    times = max(1, -(-_SIDE // codebook.size))
    stream, size = BytesIO(), (times * sheet.width, times * sheet.height)
    sheet.resize(size, Image.Resampling.NEAREST).save(stream, "JPEG", quality=_QUALITY)
    with replacing(layout.samples_file(run)) as file:
        file.write_bytes(stream.getvalue())
