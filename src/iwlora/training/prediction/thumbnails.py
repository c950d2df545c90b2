"""The images of a run's most confident errors, small, for its report."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from scipy.special import softmax

from iwlora.results import layout
from iwlora.results.writing import replacing
from iwlora.tasks import Task
from iwlora.tasks.images.contact_sheet import SIDE, small
from iwlora.tasks.kinds.contract import IMAGE, Evaluation
from iwlora.tasks.kinds.images.collator import DIGEST, open_row

MOST = 5
"""As many as a report lists of each arm."""
_QUALITY = 85


def write_thumbnails(run: Path, task: Task, evaluation: Evaluation) -> None:
    """Keep the images of the wrong predictions with the largest probability.

    They have at most 96 pixels along each side, and of their files nothing but pixels: no place, no
    time, no name of a camera.

    Args:
        run: The folder of the run.
        task: Whose kind gives one class to an image.
        evaluation: The scored rows, and the logits of the trained model.
    """
    logits = np.asarray(evaluation.outputs["logits"], dtype=np.float64)
    predicted, labels = logits.argmax(axis=1), np.asarray(evaluation.labels)
    confidence = softmax(logits, axis=1)[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST]:
        found, stream = evaluation.rows[int(row)], BytesIO()
        image = open_row({IMAGE: found[IMAGE], DIGEST: found[task.text[0]]})
        small(image, SIDE).save(stream, "JPEG", quality=_QUALITY)
        with replacing(layout.thumbnail_file(run, int(row))) as file:
            file.write_bytes(stream.getvalue())
