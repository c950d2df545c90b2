"""A kind of task: how rows are parsed, encoded, learned, predicted and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict
from typing_extensions import Self

from iwlora.tasks.collators import PaddingCollator
from iwlora.tasks.kinds.contract.averages import AveragedOutputs
from iwlora.tasks.kinds.contract.floors import Floors
from iwlora.tasks.kinds.contract.rows import (
    EVALUATION_ROWS,
    Batch,
    Collator,
    EncodingInput,
    Evaluation,
    Prediction,
    Processor,
    Tensor,
    model_inputs,
)
from iwlora.tasks.kinds.contract.texts_and_labels import TextsAndLabels
from iwlora.tasks.kinds.target_scale import TargetScale
from iwlora.tasks.schema import TaskSchema

if TYPE_CHECKING:
    import datasets


class Kind(TextsAndLabels, AveragedOutputs, Floors):
    """Base class of all kinds of tasks.

    An instance holds the options of one task, validated when it is created. The fields of a
    subclass are its options, named as in a recipe below ``task.kind``. To add a kind, write one
    subclass in one file and add one row to ``KINDS``; no other code compares the name of a kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    summary: ClassVar[str]
    image_type: ClassVar[Any] = None
    """The type of the column ``IMAGE``, for kinds that read images; None for texts."""
    processor: ClassVar[Processor] = "tokenizer"
    """What makes the inputs of a model of rows; ``codes`` is a codebook of image patches."""
    overflow: ClassVar[str] = "are cut off"
    """What happens to the tokens of a row after ``train.max_length``."""

    macro_average: ClassVar[str] = (
        "macro_f1 is the mean over the classes that occur among its labels or predictions"
    )
    """How a class without a row counts in the mean over classes."""

    not_exported: ClassVar[str] = ""
    """Why other tools cannot load an adapter of the kind; empty where they can."""

    default_metrics: ClassVar[tuple[str, ...]] = ()
    auto_class_name: ClassVar[str] = ""
    """The Auto class of transformers that loads a model with this kind's head."""

    former_defaults: ClassVar[Mapping[str, Any]] = {}
    """{option: its default in recipes of format 1 and 2} of options whose default has changed."""

    fitted_options: ClassVar[tuple[str, ...]] = ()
    """Fields that :meth:`fitted` sets, which no recipe may set."""

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
