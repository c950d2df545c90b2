"""The held-out images of a run as files, for tools that compare two folders of images."""

from __future__ import annotations

from pathlib import Path

from iwlora import tasks
from iwlora.image_tokens.codebook import Codebook, pixels_of
from iwlora.results import layout
from iwlora.results.writing import follow_umask, whole_folder
from iwlora.tasks.kinds.images.collator import open_row
from iwlora.training.image_generation.features import image_rows
from iwlora.training.prediction.tables import write_table
from iwlora.training.recipe import Recipe


def write_held_out(recipe: Recipe, codebook: Codebook, target: Path) -> None:
    """Write the images that a run is scored on, at the size of those that it generates.

    The folder has them as PNG, and ``images.csv`` with the class of each.

    Args:
        recipe: Of the run.
        codebook: Of its model.
        target: The folder to write.

    Raises:
        IwloraError: The task is not there any more.
    """
    from PIL import Image

    task = tasks.load(recipe.task, recipe.train.seed)
    split = task.reported[0]
    labels, records = task.splits[split]["label"][:], []
    with whole_folder(target) as folder:
        for number, row in enumerate(image_rows(task, split)):
            name = layout.image_file(number)
            Image.fromarray(pixels_of(open_row(row), codebook.size, 3)).save(folder / name)
            records.append({"file": name, "class": task.labels[labels[number]]})
        write_table(folder / layout.GENERATED, records)
        follow_umask(folder)
