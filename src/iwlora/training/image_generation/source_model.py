"""The small source model of image codes, trained where it is missing and then kept."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iwlora import distributed, tasks
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebooks.patch_kmeans import fit_codebook
from iwlora.image_tokens.new_model import save_new_model
from iwlora.results import layout
from iwlora.results.locks import exclusive_with_children
from iwlora.results.writing import reserve, write_errors
from iwlora.tasks.kinds.contract import IMAGE
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from iwlora.tasks.spec import TaskSpec
from iwlora.training.kept_models import KEPT, is_kept, kept_folder
from iwlora.training.recipe import Recipe, build
from iwlora.training.sharing.export import export

logger = logging.getLogger("iwlora")

Train = Callable[..., Any]
"""What :func:`iwlora.train` is."""

_TASK = {"name": "builtin/strokes", "kind": {"name": "image-tokens"}}
_CODES, _PATCH, _SIZE = 128, 4, 28
_FITTED = 1000  # images of which the codebook is made
_TRAIN = {
    "epochs": 10,
    "lr": 1e-3,
    "betas": [0.9, 0.96],
    "scheduler": "cosine",
    "batch_size": 32,
    "precision": "fp32",
    "seed": 0,
}
_BYTES = 10_000_000  # of the model and of its run


def make_missing_model(model: str, train: Train) -> None:
    """Train and keep a model of ``KEPT`` that is not there yet; others are left alone.

    A codebook is fitted to drawn strokes (``builtin/strokes``), and all weights of a new
    transformer of 0.36 million parameters are trained on their codes, with a fixed seed. Processes
    that need the same model wait for the first of them.

    Args:
        model: The model of a recipe.
        train: Trains a recipe into a folder.

    Raises:
        CannotWrite: The cache folder cannot be written.
        IwloraError: Several processes of one run would train it.
    """
    if model not in KEPT or is_kept(model):
        return
    if distributed.world_size() > 1:
        raise IwloraError(
            f"model={model} is trained first, by one process, and is not there yet; start the run "
            "once in one process"
        )
    folder, lock = kept_folder(model), kept_folder(model).with_suffix(layout.LOCK)
    with write_errors(f"the model {model}", folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    reserve(folder, _BYTES, f"the model {model}")
    with exclusive_with_children(lock, lambda: logger.warning(f"waiting for {model}")):
        if not is_kept(model):
            logger.warning(f"{model} is trained now, in a few minutes, and kept in {folder}")
            _make(folder, train)


def _make(folder: Path, train: Train) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as work:
        new, run, exported = (Path(work, name) for name in ("new", "run", "exported"))
        rows = tasks.load(TaskSpec.model_validate(_TASK), seed=0).splits["train"]
        images = rows.select_columns(["image", IMAGE]).rename_column("image", DIGEST)
        few = map(open_row, images.select(range(min(_FITTED, len(images)))))
        codebook = fit_codebook(few, codes=_CODES, patch=_PATCH, size=_SIZE)
        save_new_model(codebook, new)
        train(source_recipe(str(new)), run, floors="constant")
        os.replace(export(run, exported), folder)


def source_recipe(model: str) -> Recipe:
    """How all weights of a new model are trained on the codes of drawn strokes."""
    return build({"model": model, "task": _TASK, "method": "full", "train": _TRAIN})
