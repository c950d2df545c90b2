"""The kinds of tasks on images: the labels, losses and scores of those on texts."""

from __future__ import annotations

from typing import ClassVar

from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.images.rows import ImageHead
from iwlora.tasks.kinds.images.tokens import ImageTokens
from iwlora.tasks.kinds.multi_label import MultiLabel
from iwlora.tasks.kinds.regression import Regression


class ImageClassification(ImageHead, Classification):
    """Cross-entropy over class ids, from an image."""

    name: ClassVar[str] = "image-classification"
    summary: ClassVar[str] = "one class for an image"
    same_rows: ClassVar[tuple[str, ...]] = (ImageTokens.name,)


class ImageMultiLabel(ImageHead, MultiLabel):
    """Binary cross-entropy for each class, from an image."""

    name: ClassVar[str] = "image-multi-label"
    summary: ClassVar[str] = "any number of classes for an image"


class ImageRegression(ImageHead, Regression):
    """A number from an image, on the scale of the training rows."""

    name: ClassVar[str] = "image-regression"
    summary: ClassVar[str] = "a number for an image"
