"""One class for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.tasks.kinds.base import Answer, Kind, Outputs, Rows, plain_text
from iwlora.tasks.tokenization import tokenize

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

    from iwlora.tasks.task import Task


class SequenceKind(Kind):
    """What the kinds with one answer a row share: a head on the whole sequence."""

    def auto_class(self, config: Any) -> Any:
        """A model with a head on the sequence, of which transformers has one for each family."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def encode(
        self,
        task: Task,
        rows: datasets.Dataset,
        tokenizer: Any,
        max_length: int,
        config: Any,
        training: bool,
    ) -> datasets.Dataset:
        """Texts as :func:`iwlora.tasks.tokenization.tokenize` gives them, and the labels."""
        encoded = tokenize([rows[column] for column in task.text], tokenizer, max_length)
        if "label" not in rows.column_names:
            return encoded
        labels = rows.select_columns("label")["label"][:]  # else the texts would be read too
        return encoded.add_column("labels", self.targets(task, labels))

    def targets(self, task: Task, labels: Sequence[Any]) -> Sequence[Any]:
        """What the loss compares the logits with."""
        return labels

    def collator(self, tokenizer: Any, model: Any) -> Callable[[Rows], dict[str, Tensor]]:
        """Padded token ids, and labels as they are."""
        from iwlora.tasks.padding import padding

        return padding(tokenizer)


class Classification(SequenceKind):
    """Cross-entropy over class ids."""

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "one class for a text or a pair"
    least_classes: ClassVar[int] = 2

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracy, and the mean of F1 over the classes."""
        return ("accuracy", "macro_f1")

    def label(self, value: Any) -> str:
        """The name of the class."""
        return plain_text(value)

    def classes(self, label: str) -> Sequence[str]:
        """The one class."""
        return (label,)

    def numbered(self, label: str, ids: Mapping[str, int]) -> int:
        """The class id."""
        return ids[label]

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Text, class name, class id."""
        import pyarrow

        return pyarrow.string(), pyarrow.string(), pyarrow.int64()

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """As many logits as there are classes, and their names."""
        name_classes(config, labels)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over rows."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs.logits.float(), labels, reduction="sum")

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """The class with the largest logit, then a logit or probability for each class."""
        from scipy.special import softmax

        logits = outputs["logits"]
        values = softmax(logits, axis=1) if shares else logits
        column = "probability" if shares else "logit"
        return [
            {
                "prediction": task.labels[int(row.argmax())],
                **{f"{column}_{k}": float(v) for k, v in zip(task.labels, row, strict=True)},
            }
            for row in values
        ]

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """As :func:`iwlora.tasks.metrics.classification.score`."""
        from iwlora.tasks.metrics.classification import score

        return score(task.metrics, rows["label"][:], outputs["logits"], task.positive)

    def gold(self, task: Task, label: int) -> str:
        """The name of the class."""
        return task.labels[label]


def name_classes(config: Any, labels: Sequence[str]) -> None:
    """Give a model's configuration as many classes as there are labels, with their names."""
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
