"""Images of classes as codes, which a model learns to generate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import Self

from iwlora.errors import IwloraError
from iwlora.image_tokens.codebook import Codebook, not_square
from iwlora.image_tokens.image_codes import ImageCodes, mask_id, put_training_images
from iwlora.image_tokens.masking import masked_count, masked_places, step_ratio
from iwlora.tasks.collators import IGNORE_INDEX
from iwlora.tasks.kinds.contract import (
    DRAW,
    IMAGE,
    STEP,
    Batch,
    Dataset,
    EncodingInput,
    Evaluation,
    Prediction,
    Processor,
    Tensor,
)
from iwlora.tasks.kinds.heads import TokenLoss
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from iwlora.tasks.kinds.images.rows import ImageRows
from iwlora.tasks.schema import TaskSchema

View = tuple[list[int], list[int]]
"""(the codes that are read, the codes that are learned)."""
SCORED_MASKS = 4
"""Masks of each scored image, of a masked model; more make its score less random."""


class ImageTokens(ImageRows, TokenLoss):
    """The codes of an image, learned from its class and from its other codes.

    A model of BERT's type learns codes that are masked. In each optimizer step ⌈N cos(πu/2)⌉ codes
    of each image are masked, with one u that is uniform in 0...1. A model of GPT-2's type learns
    each code from those before it. The score is the mean negative log-likelihood of a code in nats:
    of the masked ones, with four masks for each image that depend on the image alone; or of all.

    Source:
        Chang et al. 2022, arXiv:2202.04200, section 3; Esser et al. 2021, arXiv:2012.09841.
    """

    name: ClassVar[str] = "image-tokens"
    summary: ClassVar[str] = "images of classes as codes, to generate more of them"
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, str, int)
    processor: ClassVar[Processor] = "codes"
    min_classes: ClassVar[int] = 1
    not_exported: ClassVar[str] = (
        "its adapter is for a model of image codes, and no other tool has its class prompts"
    )
    not_averaged: ClassVar[str] = "it generates images, and images of codes have no mean"
    default_metrics: ClassVar[tuple[str, ...]] = ("nll",)
    """The mean negative log-likelihood of a code, in nats."""
    fitted_options: ClassVar[tuple[str, ...]] = ("training_images",)

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The part of each target that is spread over all codes, in the training loss alone."""
    training_images: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """How many images of each class are trained on."""

    @property
    def augments(self) -> bool:
        """Always: each epoch masks other codes."""
        return True

    @property
    def scores_targets(self) -> bool:
        """Always: the codes are the targets."""
        return True

    def text_parsers(self, folder: Path) -> Sequence[Callable[[Any], Any]]:
        """One that opens square images."""
        (parse,) = super().text_parsers(folder)

        def parse_square(value: Any) -> Any:
            digest, stored = parse(value)
            if problem := not_square(stored["width"], stored["height"]):
                raise ValueError(f"holds an image {problem}")
            return digest, stored

        return (parse_square,)

    def fitted(self, labels: Sequence[int]) -> Self:
        """The kind that knows how many training images each class has."""
        counts = Counter(labels)
        images = tuple(counts[label] for label in range(max(counts, default=-1) + 1))
        return self.model_copy(update={"training_images": images})

    # The model.

    def auto_class(self, config: Any) -> Any:
        """The model of codes for the type of transformer."""
        from iwlora.image_tokens.models import MODELS

        if config.model_type not in MODELS:
            raise IwloraError(
                f"a model of type {config.model_type} does not read the codes of images; accepted "
                f"types: {', '.join(MODELS)}"
            )
        ImageCodes.of(config)
        return MODELS[config.model_type]

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """A class prompt for each class; and how many training images each has."""
        super().configure(config, labels)
        put_training_images(config, self.training_images)
        if len(labels) > config.vocab_size:
            raise IwloraError(
                f"the task has {len(labels):,} classes, and a model with {config.vocab_size:,} "
                "token embeddings can have as many classes at most"
            )

    # Learning.

    def encode(self, data: EncodingInput) -> Dataset:
        """The class and the codes of each image; scored rows of a masked model have their masks.

        ``row`` is the number of the image, and ``instance`` that of a training image in its class.
        """
        if data.labels is None:
            raise IwloraError(
                "a model of image codes predicts no labels of images; 'iwlora generate' makes "
                "images of a class"
            )
        codebook: Codebook = data.processor
        ImageCodes.of(data.config).check(codebook)
        (column,) = data.schema.text
        images = data.rows.select_columns([column, IMAGE]).rename_column(column, DIGEST)
        mask, rows = mask_id(data.config), list[dict[str, Any]]()
        of_class = Counter[int]()
        for number, (image, label) in enumerate(zip(images, data.labels[:], strict=True)):
            codes = codebook.encode(open_row(image))
            views: Sequence[View] = [(codes, codes)]
            if mask is not None and not data.training:
                views = _scored_views(codes, mask, image[DIGEST])
            instance = {"instance": of_class[label]} if data.training else {}
            of_class[label] += 1
            rows += [
                {"input_ids": [label, *read], "labels": learned, "row": number, **instance}
                for read, learned in views
            ]
        return _dataset(rows)

    def collator(self, tokenizer: Any, model: Any) -> ImageTokenCollator:
        """Masks the codes of training rows."""
        return ImageTokenCollator(mask_id(model.config))

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats with smoothed targets, summed over the learned codes."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(
            outputs.logits.float().flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    # Predictions and scores.

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """The loss and the number of scored codes of each row, without smoothing."""
        return self.row_losses(self.forward(model, batch).logits, batch["labels"])

    def text_losses(self, evaluation: Evaluation) -> Sequence[tuple[float, int]]:
        """(loss in nats, codes) of each image, over all of its masks."""
        losses, counts = [0.0] * len(evaluation.rows), [0] * len(evaluation.rows)
        outputs = evaluation.outputs
        of_rows = zip(outputs["loss"].tolist(), outputs["count"].tolist(), strict=True)
        for row, (loss, count) in zip(evaluation.encoded["row"][:], of_rows, strict=True):
            losses[row] += float(loss)
            counts[row] += int(count)
        return list(zip(losses, counts, strict=True))

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The mean negative log-likelihood of the scored codes of each image, and their number."""
        return [
            {"nll": loss / count, "tokens": count} for loss, count in self.text_losses(evaluation)
        ]

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The mean negative log-likelihood over the scored codes of all images."""
        return _mean(self.text_losses(evaluation))

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[Any], predictions: Sequence[Any]
    ) -> dict[str, float]:
        """The same from the losses of some images."""
        return _mean(predictions)

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, Any]:
        """The class, and (loss, codes) of the image."""
        tokens = int(row["tokens"])
        return row["label"], (float(row["nll"]) * tokens, tokens)


@dataclass(frozen=True)
class ImageTokenCollator:
    """Batches of ``input_ids``, (rows, 1 + N), and ``labels``, (rows, N).

    Those of training images have ``instances``, (rows,), too.

    Args:
        mask: The id of a masked code; None for models that learn each code from those before it.
    """

    mask: int | None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of these encoded rows; those with a draw are masked by it."""
        import torch

        pairs = [self._masked(row) for row in rows]
        read, learned = zip(*pairs, strict=True)
        batch = {"input_ids": torch.tensor(read), "labels": torch.tensor(learned)}
        if "instance" in rows[0]:
            batch["instances"] = torch.tensor([row["instance"] for row in rows])
        return batch

    def _masked(self, row: Mapping[str, Any]) -> View:
        label, *codes = row["input_ids"]
        if self.mask is None or DRAW not in row:
            return row["input_ids"], row["labels"]
        count = masked_count(len(codes), step_ratio(row[STEP]))
        read, learned = _with_mask(codes, count, row[DRAW], self.mask)
        return [label, *read], learned


def _scored_views(codes: list[int], mask: int, digest: str) -> Sequence[View]:
    """The view of each mask of an image, from the digest of its file.

    The ratios of an image are spread evenly: u = (j + v) / 4 for j = 0...3.
    """
    seed = [int(digest[start : start + 8], 16) for start in range(0, 64, 8)]
    offset = step_ratio(seed)
    ratios = [(number + offset) / SCORED_MASKS for number in range(SCORED_MASKS)]
    return [
        _with_mask(codes, masked_count(len(codes), u), [number, *seed], mask)
        for number, u in enumerate(ratios)
    ]


def _with_mask(codes: list[int], count: int, draw: Sequence[int], mask: int) -> View:
    """(the codes with some masked, those alone as labels)."""
    read, learned = list(codes), [IGNORE_INDEX] * len(codes)
    for place in masked_places(len(codes), count, draw).tolist():
        read[place], learned[place] = mask, codes[place]
    return read, learned


def _dataset(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """The encoded rows, each with its length."""
    import datasets

    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return datasets.Dataset.from_dict(
        {**columns, "length": [len(row["input_ids"]) for row in rows]}
    )


def _mean(losses: Sequence[tuple[float, int]]) -> dict[str, float]:
    mean = sum(loss for loss, _ in losses) / max(sum(count for _, count in losses), 1)
    return {"nll": mean, "loss": mean}
