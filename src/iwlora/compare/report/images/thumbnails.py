"""Small images on the page of a report, and those of confident errors."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from iwlora.compare.report.tables.classes import class_predictions
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run


@dataclass(frozen=True)
class Thumbnail:
    """A small image, a JPEG file, and a sentence on it."""

    text: str
    content: bytes

    @property
    def in_base64(self) -> str:
        """The file as a page embeds it."""
        return base64.b64encode(self.content).decode("ascii")


def error_thumbnails(comparison: Comparison) -> list[Thumbnail]:
    """The images of the rows in the table of confident errors, where the runs kept them."""
    first: dict[str, Run] = {}
    for run in comparison.runs:
        first.setdefault(run.result.label, run)
    thumbnails = []
    for arm, run in first.items():
        found = class_predictions(run) if run.result.kind else None
        if found is None or found.probabilities is None:
            continue
        for row in found.confident_errors:
            content = run.thumbnail(row)
            if content is not None:
                label, prediction = (
                    found.classes[i[row]] for i in (found.labels, found.predictions)
                )
                text = f"{arm}, row {row}: {label}, predicted {prediction}"
                thumbnails.append(Thumbnail(text, content))
    return thumbnails
