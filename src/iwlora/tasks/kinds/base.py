"""What a kind of task is: how its rows are read, encoded, learned, answered and scored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from iwlora.tasks.task import Task

Rows = Sequence[Mapping[str, Any]]
Outputs = Mapping[str, Any]
Answer = dict[str, Any]


class Kind(BaseModel):
    """Base of all kinds of tasks: an instance holds the options of one, checked when it is made.

    A kind is one subclass in one file and one row in ``KINDS``. Fields are its options as a
    recipe names them below ``task.kind``. Nothing outside asks for a kind by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    summary: ClassVar[str]
    columns: ClassVar[tuple[int, int]] = (1, 2)
    """The least and the most text columns."""
    label_columns: ClassVar[bool] = False
    """Whether there may be several label columns, one a class."""
    least_classes: ClassVar[int] = 0
    """The fewest classes that make such a task."""
    beyond: ClassVar[str] = "are beyond"
    """What becomes of the tokens of a row after ``train.max_length``."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of a task in the user's own files, the primary one first."""
        raise NotImplementedError

    def metrics_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The metrics where the classes are these."""
        return self.metrics

    # Rows of the user's own files.

    def text(self, value: Any) -> Any:
        """A cell of a text column as a row holds it; ``ValueError`` says what is wrong with it."""
        return plain_text(value)

    def further(self, value: Any) -> Any:
        """A cell of a text column after the first, as ``text``."""
        return self.text(value)

    def label(self, value: Any) -> Any:
        """A cell of the label column, class names for classes; ``ValueError`` as ``text``."""
        raise NotImplementedError

    def classes(self, label: Any) -> Sequence[str]:
        """The class names in what ``label`` returned; none where the task has no classes."""
        return ()

    def derived(self, text: Any) -> Any:
        """The label where there is no column for it; ``ValueError`` where it needs one."""
        raise ValueError("needs a label column; give task.label=COLUMN")

    def numbered(self, label: Any, ids: Mapping[str, int]) -> Any:
        """The label of a row with class ids for names."""
        return label

    def check(self, row: Sequence[Any]) -> None:
        """Raise ``ValueError`` where the texts and the label (last) of a row do not fit."""

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Arrow types of a text, of a label as ``label`` returns it, and as ``numbered`` does."""
        raise NotImplementedError

    def targets_cut(self, rows: datasets.Dataset, tokenizer: Any) -> tuple[Sequence[int], int]:
        """(tokens of each target, how many of them are learned) where targets are texts."""
        return (), 0

    # The model.

    def auto_class(self, config: Any) -> Any:
        """The class of transformers that loads the model with this kind's head.

        Raises ``IwloraError`` for a model that cannot do this kind of task.
        """
        raise NotImplementedError

    def renamed(self, config: Any) -> dict[str, str] | None:
        """Patterns of parameters' names in a checkpoint, and what they are called in the model
        with this kind's head; None where nothing differs."""
        return None

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """Tell the configuration what the head is to answer."""

    def check_model(
        self, model: Any, rows: datasets.Dataset, collate: Callable[[Rows], dict[str, Tensor]]
    ) -> None:
        """Raise ``IwloraError`` where the model, a method attached, cannot learn encoded rows."""

    # Learning.

    def encode(
        self,
        task: Task,
        rows: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        config: Any,
        training: bool,
    ) -> datasets.Dataset:
        """Rows as token ids: what the collator reads, and ``length`` (tokens).

        ``labels`` are there where the rows have a column ``label``. One row may become several,
        or with ``training`` several one. Raises ``IwloraError`` for a ``max_length`` that cannot
        be kept.
        """
        raise NotImplementedError

    def collator(self, tokenizer: Any, model: Any) -> Callable[[Rows], dict[str, Tensor]]:
        """What makes a padded batch of encoded rows: the model's inputs and ``labels``."""
        raise NotImplementedError

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """The loss of a batch, summed over its ``count(labels)`` items, in float32."""
        raise NotImplementedError

    def count(self, labels: Tensor) -> Tensor:
        """The number of items over which the loss of a batch is averaged."""
        return labels.new_tensor(labels.numel())

    def batch_loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of a batch: what ``iwlora.measure`` differentiates."""
        outputs = model(**inputs_of(batch))
        return self.loss(outputs, batch["labels"]) / self.count(batch["labels"])

    # Answers.

    def outputs(
        self, model: Any, tokenizer: Any, batch: Mapping[str, Tensor], final: bool
    ) -> dict[str, Tensor]:
        """What the model says of each row of a batch, first axis the row; no labels are needed.

        ``final`` is False during training, where slow answers may be left out.
        """
        return {"logits": model(**inputs_of(batch)).logits.float()}

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """The columns of each row's prediction; ``shares``: probabilities in place of logits."""
        raise NotImplementedError

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """The task's metrics and ``loss``, each over all rows.

        Raises ``IwloraError`` for outputs that are not finite.
        """
        raise NotImplementedError

    def gold(self, task: Task, label: Any) -> Any:
        """A row's label as the predictions show it."""
        return label


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a batch that the model reads.

    >>> sorted(inputs_of({"input_ids": None, "labels": None, "prompt_ids": None}))
    ['input_ids']
    """
    apart = ("labels", "prompt_ids", "prompt_mask")
    return {key: value for key, value in batch.items() if key not in apart}


def finite(values: Any) -> Any:
    """Logits in float64; raises ``IwloraError`` where they are not finite."""
    import numpy as np

    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise IwloraError("the logits are not finite: the model diverged; lower train.lr")
    return found


def plain_text(value: Any) -> str:
    """The text of a field, blanks at its ends cut; the ``ValueError`` says what it is instead.

    >>> plain_text(" a film "), plain_text(2012), plain_text(True)
    ('a film', '2012', 'true')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("is empty")
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"holds a {type(value).__name__}, not text or a number")
    text = value.strip()
    if not text:
        raise ValueError("is empty")
    return text


def plain_list(value: Any, separator: str | None) -> list[str]:
    """A list of texts, given as a list, as JSON, or as text with ``separator`` between (None:
    blanks); the ``ValueError`` says what it is instead.

    >>> plain_list("a; b", ";"), plain_list('["a", "b"]', ";"), plain_list("a b", None)
    (['a', 'b'], ['a', 'b'], ['a', 'b'])
    """
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = from_json(value)
            except ValueError:
                value = value.split(separator)
        else:
            value = [part for part in value.split(separator) if part.strip()]
    if value is None:
        raise ValueError("is empty")
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"holds a {type(value).__name__}, not a list")
    return [plain_text(item) for item in value]
