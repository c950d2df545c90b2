"""How good the images are that a run generates: ``scores.json`` beside the images."""

from __future__ import annotations

from statistics import fmean
from typing import Annotated, Any, ClassVar

from pydantic import Field

from iwlora.results.formats import Document

GENERATED, HELD_OUT, TRAINING = "generated", "held-out", "training"
"""The sets of images."""

Share = Annotated[float, Field(ge=0, le=1)]
Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ImageScores(Document):
    """The scores of generated images beside those of real ones, which show what can be reached.

    Args:
        extractor: What the features are.
        classifier: What recognizes classes.
        images: {set: its images}.
        classes: {class: its generated images}.
        frechet_distance: {generated or training: the distance to the held-out images of the
            generated classes}.
        diversity: {generated or held-out: {class: the mean distance of two of its images}}.
        accuracy: {generated or held-out: the share of recognized images}.
        left_out: Why a score is not there.
    """

    format_name: ClassVar[str] = "images"
    is_sealed: ClassVar[bool] = True

    extractor: str
    classifier: str
    images: dict[str, int]
    classes: dict[str, int]
    frechet_distance: dict[str, Distance]
    diversity: dict[str, dict[str, Distance]]
    accuracy: dict[str, Share]
    left_out: list[str]

    @property
    def setting(self) -> tuple[Any, ...]:
        """What scores must share to be compared."""
        return self.extractor, self.classifier, self.images, self.classes

    def mean_diversity(self, of: str) -> float | None:
        """The mean distance within a class, over the classes; None where it is not known."""
        of_class = self.diversity.get(of, {})
        return fmean(of_class.values()) if of_class else None
