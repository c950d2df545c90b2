"""Features of real and of generated images, which their scores are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from iwlora.image_tokens.codebook import Codebook, Pixels, pixels_of
from iwlora.image_tokens.decoding import Codes
from iwlora.methods.contract import seeded
from iwlora.tasks.kinds.contract import IMAGE, Dataset
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.task import Task
from iwlora.training.device import run_device
from iwlora.training.floors.frozen_model import mean_over_places
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import Recipe

_AT_A_TIME = 64
Features = npt.NDArray[np.float64]
"""(images, features)."""


class Extractor(Protocol):
    """What has features of images."""

    @property
    def name(self) -> str:
        """What the features are."""

    def of_codes(self, codes: Codes) -> Features:
        """The features of generated images."""

    def of_rows(self, rows: Dataset) -> Features:
        """The features of real images, as :func:`image_rows` returns them."""


@dataclass(frozen=True)
class SourceModel:
    """The mean over places of the last hidden state of a model of codes, without a class.

    Args:
        name: What the features are.
        model: The model of codes.
        codebook: Of the model.
    """

    name: str
    model: Any
    codebook: Codebook

    @classmethod
    def of(cls, recipe: Recipe, task: Task, codebook: Codebook, trust: bool) -> SourceModel:
        """The source model of a run as it was before training.

        Raises:
            IwloraError: It is not there any more.
        """
        with seeded(0):
            model, _ = load_backbone(recipe.model, task.labels, task.kind, trust)
        model.to(run_device()).eval()  # type: ignore[arg-type]
        name = f"mean last hidden state of {recipe.model} before training, without a class"
        return cls(name, model, codebook)

    def of_codes(self, codes: Codes) -> Features:
        """The features of images that are codes already."""
        device, collected = next(self.model.parameters()).device, []
        hook = self.model.class_prompts.register_forward_hook(lambda _, __, output: output * 0)
        try:
            with torch.inference_mode():
                for start in range(0, len(codes), _AT_A_TIME):
                    read = torch.from_numpy(codes[start : start + _AT_A_TIME]).to(device)
                    ids = torch.cat([torch.zeros_like(read[:, :1]), read], dim=1)
                    output = self.model(input_ids=ids, output_hidden_states=True)
                    hidden = output.hidden_states[-1][:, 1:]
                    collected.append(hidden.double().mean(1).cpu().numpy())
        finally:
            hook.remove()
        return np.concatenate(collected)

    def of_rows(self, rows: Dataset) -> Features:
        """The features of real images, which become codes."""
        return self.of_codes(np.array([self.codebook.encode(open_row(row)) for row in rows]))


@dataclass(frozen=True)
class ImageModel:
    """The mean over places of the last hidden state of a model that reads the pixels of images.

    Real images are scaled to the size of the generated ones before.

    Args:
        name: What the features are.
        model: A model of transformers, without its head.
        processor: Its image processor.
        codebook: Which decodes generated images.
    """

    name: str
    model: Any
    processor: Any
    codebook: Codebook

    @classmethod
    def of(cls, model: str, codebook: Codebook, trust: bool) -> ImageModel:
        """A model of images, from a folder or a hub id.

        Raises:
            IwloraError: It cannot be loaded, or reads no images.
        """
        loaded, processor = load_backbone(model, (), ImageClassification(), trust)
        encoder: Any = loaded.base_model
        encoder.to(run_device()).eval()
        return cls(f"mean last hidden state of {model}", encoder, processor, codebook)

    def of_codes(self, codes: Codes) -> Features:
        """The features of decoded images."""
        return self._of_pixels(self.codebook.decode(row) for row in codes.tolist())

    def of_rows(self, rows: Dataset) -> Features:
        """The features of real images."""
        return self._of_pixels(pixels_of(open_row(row), self.codebook.size, 3) for row in rows)

    def _of_pixels(self, images: Iterable[Pixels]) -> Features:
        device, collected = next(self.model.parameters()).device, []
        with torch.inference_mode():
            for batch in _batches(images):
                made = self.processor(batch, return_tensors="pt")
                hidden = self.model(pixel_values=made["pixel_values"].to(device))[0]
                collected.append(mean_over_places(hidden.double(), None).cpu().numpy())
        return np.concatenate(collected)


def image_rows(task: Task, split: str) -> Dataset:
    """The images of a split, as ``open_row`` takes them."""
    (column,) = task.text
    return task.splits[split].select_columns([column, IMAGE]).rename_column(column, DIGEST)


def _batches(images: Iterable[Pixels]) -> Iterator[list[Pixels]]:
    each = iter(images)
    while batch := list(islice(each, _AT_A_TIME)):
        yield batch
