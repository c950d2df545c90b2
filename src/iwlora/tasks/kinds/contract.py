"""The contract of a kind of task: how rows are parsed, encoded, learned, predicted and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from iwlora.tasks.collators import PaddingCollator
from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.target_scale import TargetScale
from iwlora.tasks.metrics.logits import Average
from iwlora.tasks.schema import TaskSchema

if TYPE_CHECKING:
    import datasets
    import torch

Dataset: TypeAlias = "datasets.Dataset"
Tensor: TypeAlias = "torch.Tensor"
Batch = Mapping[str, Tensor]
Collator = Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]
Prediction = dict[str, Any]
Processor = Literal["tokenizer", "image processor", "codes"]

OTHER_REFERENCES = "other_references"
IMAGE = "image of the row"
"""The column of kinds that read images with each image; their text column has its digest."""
DRAW = "draw"
"""The field of training rows with (seed, epoch, row), from which their changes are drawn."""
STEP = "step"
"""The same with (seed, epoch, step), from which is drawn what all rows of a step share."""
EVALUATION_ROWS = 64
"""Rows that are scored at a time."""


@dataclass(frozen=True)
class EncodingInput:
    """Rows of a task, and the model that is to read them.

    Args:
        schema: The schema of the task.
        rows: The text columns, and ``label`` where the rows have labels.
        processor: The tokenizer of the model, or its image processor.
        max_length: The longest encoded row, in tokens.
        config: The configuration of the model; kinds with a head on the sequence do not need it.
        training: Whether the rows are trained on; otherwise they are scored.
        notes: Encoding adds to it what a user should know about the encoded rows.
    """

    schema: TaskSchema
    rows: datasets.Dataset
    processor: Any
    max_length: int
    config: Any = None
    training: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[Sequence[Any]]:
        """The text columns."""
        return [self.rows[name] for name in self.schema.text]

    @property
    def labels(self) -> Any:
        """The label of each row, to slice; None for rows without labels."""
        if "label" not in self.rows.column_names:
            return None
        return self.rows.select_columns("label")["label"]  # without it the texts are read too


@dataclass(frozen=True)
class Evaluation:
    """Rows of a task, and what a model computed for them.

    Args:
        schema: The schema of the task.
        rows: The rows as they are in the split.
        encoded: The rows as ``Kind.encode`` returned them.
        outputs: What ``Kind.outputs`` returned for all of them, as NumPy arrays.
        processor: The tokenizer of the model, or its image processor.
    """

    schema: TaskSchema
    rows: datasets.Dataset
    encoded: datasets.Dataset
    outputs: Mapping[str, Any]
    processor: Any

    @property
    def labels(self) -> Any:
        """The encoded label of each row."""
        return self.rows["label"][:]


class Kind(BaseModel):
    """Base class of all kinds of tasks.

    An instance holds the options of one task, validated when it is created. The fields of a
    subclass are its options, named as in a recipe below ``task.kind``. To add a kind, write one
    subclass in one file and add one row to ``KINDS``; no other code compares the name of a kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    summary: ClassVar[str]
    text_columns: ClassVar[tuple[int, int]] = (1, 2)
    """The smallest and the largest number of text columns."""
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, str, str)
    """The types of a text, of a parsed label and of an encoded label, for ``arrow_type``."""
    image_type: ClassVar[Any] = None
    """The type of the column ``IMAGE``, for kinds that read images; None for texts."""
    processor: ClassVar[Processor] = "tokenizer"
    """What makes the inputs of a model of rows; ``codes`` is a codebook of image patches."""
    several_label_columns: ClassVar[bool] = False
    """Whether a task may have several label columns, one per class."""
    same_rows: ClassVar[tuple[str, ...]] = ()
    """Other kinds that can learn the rows of a named task of this kind."""
    one_class: ClassVar[bool] = False
    """Whether each row has exactly one class, so that classes can be weighted and balanced."""
    several_references: ClassVar[bool] = False
    """Whether a label may be a list of texts, each of which is a correct prediction."""
    learns_texts: ClassVar[bool] = False
    """Whether the texts themselves are what is learned, so that there is no label."""
    min_classes: ClassVar[int] = 0
    """The smallest number of classes."""
    overflow: ClassVar[str] = "are cut off"
    """What happens to the tokens of a row after ``train.max_length``."""

    macro_average: ClassVar[str] = (
        "macro_f1 is the mean over the classes that occur among its labels or predictions"
    )
    """How a class without a row counts in the mean over classes."""

    floor_limits: ClassVar[tuple[int, int]] = (20_000, 5_000_000)
    """The most scored rows, and characters in them, on which floors are compared within seconds."""

    has_constant_floor: ClassVar[bool] = False
    """Whether :meth:`constant_floor` knows the best prediction that is the same for all rows."""
    has_linear_model: ClassVar[bool] = False
    """Whether :meth:`linear_predictions` can predict from one vector of features for a row."""

    not_exported: ClassVar[str] = ""
    """Why other tools cannot load an adapter of the kind; empty where they can."""

    not_averaged: ClassVar[str] = "it writes texts, and texts have no mean"
    """Why the outputs of several models cannot be averaged; empty where they can."""

    averages: ClassVar[tuple[Average, ...]] = ()
    """What of them can be averaged, the default first; none for numbers."""

    default_metrics: ClassVar[tuple[str, ...]] = ()
    auto_class_name: ClassVar[str] = ""
    """The Auto class of transformers that loads a model with this kind's head."""

    former_defaults: ClassVar[Mapping[str, Any]] = {}
    """{option: its default in recipes of format 1 and 2} of options whose default has changed."""

    fitted_options: ClassVar[tuple[str, ...]] = ()
    """Fields that :meth:`fitted` sets, which no recipe may set."""

    @property
    def has_classes(self) -> bool:
        """Whether a label holds class names, which are encoded as class ids."""
        return bool(self.column_types[1] != self.column_types[2])

    @property
    def reads_images(self) -> bool:
        """Whether a row has an image in place of a text."""
        return self.image_type is not None

    @property
    def augments(self) -> bool:
        """Whether the collator changes training rows at random, by their ``DRAW`` and ``STEP``."""
        return False

    @property
    def content(self) -> str:
        """What equal rows have in common, in words."""
        return "image" if self.reads_images else "texts"

    @property
    def generated_tokens(self) -> int:
        """The largest number of tokens that the model generates for a row; 0 for most kinds."""
        return 0

    @property
    def scores_targets(self) -> bool:
        """Whether the perplexity of given targets is scored, and nothing that is generated."""
        return False

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of a task in the user's own files, the primary one first."""
        return self.default_metrics

    def metrics_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The metrics of a task with these classes."""
        return self.metrics

    # Rows of the user's own files.

    def parse_text(self, value: Any) -> Any:
        """The text in a cell of the first text column.

        Raises:
            ValueError: The cell holds something else; the message completes "column X ...".
        """
        return parse_text(value)

    def parse_second_text(self, value: Any) -> Any:
        """The text in a cell of the second text column, as ``parse_text``."""
        return self.parse_text(value)

    def text_parsers(self, path: str) -> Sequence[Callable[[Any], Any]]:
        """What parses the cells of the text columns of a file, in the order of the columns.

        For images it returns pairs: the digest, and what is in the column ``IMAGE``.
        """
        return self.parse_text, self.parse_second_text

    def shown_texts(self, rows: datasets.Dataset, column: str) -> Sequence[Any]:
        """A text column as the file of predictions shows it; of images the names."""
        texts: Sequence[Any] = rows[column]
        return texts

    def parse_label(self, value: Any) -> Any:
        """The label in a cell of the label column, with class names; raises as ``parse_text``."""
        return parse_text(value)

    def label_from_text(self, text: Any) -> Any:
        """The label of a file without a label column; ``ValueError`` where the kind needs one."""
        raise ValueError("needs a label column; give task.label=COLUMN")

    def complete_label(self, texts: Sequence[Any], label: Any) -> Any:
        """The label, completed by what the texts say; ``ValueError`` where the two disagree."""
        return label

    def class_names(self, label: Any) -> Sequence[str]:
        """The class names in a parsed label, where the task has classes."""
        return (label,) if isinstance(label, str) else label

    def encode_label(self, label: Any, ids: Mapping[str, int]) -> Any:
        """A parsed label with class ids in place of class names."""
        return ids[label] if isinstance(label, str) else [ids[name] for name in label]

    def strata(self, labels: Sequence[Any], most: int) -> Sequence[Sequence[int]]:
        """The classes of each row, which rows that are held out must represent.

        Args:
            labels: The encoded label of each row.
            most: The largest number of classes, for kinds that choose it.

        Returns:
            The class ids of each row, -1 for no class; 0 for all rows of a kind without classes.
        """
        if not self.has_classes:
            return [(0,)] * len(labels)
        return [(row,) if isinstance(row, int) else sorted(set(row)) or (-1,) for row in labels]

    def notation(self, value: Any) -> str:
        """How a label's cell is written, which must be the same in all rows of all files."""
        return ""

    def other_references(self, value: Any) -> list[str]:
        """The accepted texts in a label's cell besides the first, which ``parse_label`` returns.

        They are in the column ``OTHER_REFERENCES`` of the rows, if any row has one.
        """
        return []

    def target_lengths(self, rows: datasets.Dataset, tokenizer: Any) -> tuple[Sequence[int], int]:
        """(tokens of each target, how many of them are learned), where targets are texts."""
        return (), 0

    def fitted(self, labels: Sequence[Any]) -> Self:
        """The kind with what it takes from the encoded labels of the rows that are trained on.

        The result of a run stores it, so that the run's predictions use the same.
        """
        return self

    @property
    def scaling(self) -> TargetScale | None:
        """The scale on which numbers are learned; None where the logits are what is predicted."""
        return None

    def with_scaling(self, scale: TargetScale) -> Self:
        """The kind with this scale in place of its own."""
        return self

    def ranked(
        self, metrics: Sequence[str], rows: datasets.Dataset, tokenizer: Any
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(the metrics with the primary one first, notes), where the scored rows decide it."""
        return tuple(metrics), ()

    # The model.

    def auto_class(self, config: Any) -> Any:
        """The Auto class of transformers that loads the model with this kind's head.

        Raises:
            IwloraError: A model with this configuration cannot do this kind of task.
        """
        import transformers

        return getattr(transformers, self.auto_class_name)

    def checkpoint_key_mapping(self, config: Any) -> dict[str, str] | None:
        """``key_mapping`` for ``from_pretrained``: parameter names in a checkpoint to those in
        the model with this kind's head; None where they are the same."""
        return None

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """Set the size of the head, and the names of its classes, in a model's configuration."""
        if labels:
            config.num_labels = len(labels)
            config.id2label = dict(enumerate(labels))
            config.label2id = {name: index for index, name in enumerate(labels)}

    def check_model(self, model: Any, rows: datasets.Dataset, collate: Collator) -> None:
        """Raise ``IwloraError`` where the model, with its adapter, cannot learn encoded rows."""

    # Learning.

    def encode(self, data: EncodingInput) -> datasets.Dataset:
        """Rows as token ids, or as images that the collator opens.

        One row may become several rows, and in training several rows may become one.

        Returns:
            The fields that the collator reads, ``length`` in tokens, and ``labels`` where the rows
            have a ``label``.

        Raises:
            IwloraError: The tokenizer or the model does not support ``max_length``.
        """
        raise NotImplementedError

    def collator(self, tokenizer: Any, model: Any) -> Collator:
        """The function that makes a padded batch of encoded rows: model inputs and ``labels``."""
        return PaddingCollator.from_tokenizer(tokenizer)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """The loss of a batch, summed over its ``count(labels)`` items, in float32."""
        raise NotImplementedError

    def with_class_weights(self, weights: Sequence[float]) -> Kind:
        """The kind whose loss and ``count`` weigh each row by its class, where ``one_class``."""
        raise NotImplementedError

    def count(self, labels: Tensor) -> Tensor:
        """The number of items over which the loss of a batch is averaged."""
        return labels.new_tensor(labels.numel())

    def forward(self, model: Any, batch: Batch) -> Any:
        """The output of the model for a batch."""
        return model(**model_inputs(batch))

    def batch_loss(self, model: Any, batch: Batch) -> Tensor:
        """The mean loss of a batch: the function that ``iwlora.measure`` differentiates."""
        outputs = self.forward(model, batch)
        return self.loss(outputs, batch["labels"]) / self.count(batch["labels"])

    # Predictions and scores.

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """What the model computes for each row of a batch; the first axis is the row.

        Labels are not needed. ``final`` is False while training goes on: then slow outputs, such
        as generated texts, are left out.
        """
        return {"logits": self.forward(model, batch).logits.float()}

    def evaluation_rows(self, max_length: int) -> int:
        """Rows of at most ``max_length`` tokens that are scored at a time."""
        return EVALUATION_ROWS

    def stop_tokens(self, tokenizer: Any, known: Any) -> list[int]:
        """The ids of the tokens that end a generated text; none for kinds that generate none.

        Args:
            tokenizer: The tokenizer of the model.
            known: ``eos_token_id`` of the model's generation configuration: an id, several or None.
        """
        return []

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The columns of each row's prediction.

        Args:
            evaluation: The rows, and what the model computed for them.
            probabilities: Whether to return probabilities of classes instead of logits.
        """
        raise NotImplementedError

    def shared_scale(self) -> Self:
        """The kind of outputs that several models share: numbers are in units of the targets."""
        return self

    def on_shared_scale(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a model of this kind as :meth:`shared_scale` has them."""
        return dict(outputs)

    def average(
        self, outputs: Sequence[Mapping[str, Any]], weights: Any, average: Average
    ) -> dict[str, Any]:
        """The mean of several models' outputs, as one model would give it.

        Args:
            outputs: Of each model for the same rows, on the shared scale.
            weights: (models, rows), of which each column sums to 1.
            average: What is averaged; without effect where :attr:`averages` is empty.
        """
        raise NotImplementedError

    def stored_outputs(
        self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]
    ) -> dict[str, Any] | None:
        """The outputs, on the shared scale, in a run's stored file of predictions.

        None where the file does not have them.
        """
        return None

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The metrics of the task and ``loss``, each over all rows.

        Raises:
            IwloraError: The outputs are not finite.
        """
        raise NotImplementedError

    def rescore(self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
        """Those metrics of a run that the rows of its stored file of predictions determine.

        Args:
            schema: The schema of the task.
            rows: What is in the file: lists are written as JSON.

        Raises:
            ValueError: A cell holds something else than was stored.
        """
        pairs = map(self.stored_pair, rows)
        references, predictions = map(list, zip(*pairs, strict=True))
        return self.prediction_scores(schema, references, predictions)

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, Any]:
        """(reference, prediction) in a row of a stored file, for :meth:`prediction_scores`."""
        return row["label"], row["prediction"]

    def constant_floor(self, schema: TaskSchema, labels: Sequence[Any], rows: int) -> Floor:
        """What predicts the same for all ``rows``, known from the training labels."""
        raise NotImplementedError

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """What simple rules that know the training rows predict for rows to score."""
        return []

    def linear_predictions(
        self, schema: TaskSchema, features: Any, labels: Sequence[Any], scored: Any
    ) -> list[Any]:
        """What a linear model predicts, learned from features of training rows.

        Args:
            schema: The schema of the task.
            features: Of the training rows, (rows, features).
            labels: Their encoded labels.
            scored: The features of the rows to predict.
        """
        raise NotImplementedError

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[Any], predictions: Sequence[Any]
    ) -> dict[str, float]:
        """Those metrics that the column ``prediction`` determines.

        Args:
            schema: The schema of the task.
            references: Of some rows, as :meth:`stored_pair` returns them.
            predictions: Of the same rows.
        """
        return {}

    def scoring_targets(self) -> Self:
        """The kind with ``scores_targets``, for a task that is ranked by perplexity."""
        return self

    def text_losses(self, evaluation: Evaluation) -> Sequence[tuple[float, int]]:
        """(loss in nats, tokens) of what is learned of each row, where ``scores_targets``."""
        raise NotImplementedError

    def label_scores(self, evaluation: Evaluation) -> dict[str, dict[str, float]]:
        """{class: its ``f1``, ``precision``, ``recall`` and number of ``rows``}, for some kinds."""
        return {}

    def signatures(self, rows: datasets.Dataset) -> dict[str, str]:
        """{metric: how it is computed} of metrics for which that depends on the scored rows.

        Raises:
            IwloraError: A library that a metric needs is not installed.
        """
        return {}

    def references(self, evaluation: Evaluation) -> list[Any]:
        """What each row's prediction is compared with, as the file of predictions shows it."""
        return [self.readable_label(evaluation.schema, label) for label in evaluation.labels]

    def readable_label(self, schema: TaskSchema, label: Any) -> Any:
        """A label as the file of predictions shows it: class names instead of ids."""
        if not self.has_classes:
            return label
        return schema.labels[label] if isinstance(label, int) else [schema.labels[k] for k in label]


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    """The part of a batch that is passed to the model.

    >>> sorted(model_inputs({"input_ids": None, "labels": None, "prompt_ids": None}))
    ['input_ids']
    """
    not_passed = ("labels", "prompt_ids", "prompt_mask")
    return {name: value for name, value in batch.items() if name not in not_passed}
