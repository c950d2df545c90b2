"""Any number of classes for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.tasks.kinds.base import Answer, Outputs, finite, plain_list
from iwlora.tasks.kinds.classification import SequenceKind, name_classes

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

    from iwlora.tasks.task import Task

SEPARATOR = ";"
_TRUTH = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class MultiLabel(SequenceKind):
    """Binary cross-entropy for each class; a class is answered from a probability of a half on."""

    name: ClassVar[str] = "multi-label"
    summary: ClassVar[str] = "any number of classes for a text or a pair"
    label_columns: ClassVar[bool] = True

    @property
    def metrics(self) -> tuple[str, ...]:
        """F1 over all decisions, mean of F1 over classes, share of rows without a mistake."""
        return ("micro_f1", "macro_f1", "accuracy")

    def label(self, value: Any) -> list[str]:
        """Class names: a list, JSON, text with ``;`` between, or {column: 0 or 1}."""
        if isinstance(value, Mapping):
            return [name for name, cell in value.items() if _holds(name, cell)]
        if isinstance(value, str) and not value.strip():
            return []
        return list(dict.fromkeys(plain_list(value, SEPARATOR)))

    def classes(self, label: list[str]) -> Sequence[str]:
        """All of them."""
        return label

    def numbered(self, label: list[str], ids: Mapping[str, int]) -> list[int]:
        """Class ids, in their order."""
        return sorted(ids[name] for name in label)

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Text, class names, class ids."""
        import pyarrow

        return pyarrow.string(), pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.int64())

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """A logit for each class, of which several may hold."""
        name_classes(config, labels)
        config.problem_type = "multi_label_classification"

    def targets(self, task: Task, labels: Sequence[Sequence[int]]) -> list[list[float]]:
        """1.0 at the classes that a row has, 0.0 elsewhere."""
        return [[float(k in set(row)) for k in range(len(task.labels))] for row in labels]

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Binary cross-entropy in nats, summed over rows and classes."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs.logits.float(), labels, reduction="sum")

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """The classes with a positive logit, then a logit or probability for each class."""
        from scipy.special import expit

        values = expit(outputs["logits"]) if shares else outputs["logits"]
        column = "probability" if shares else "logit"
        return [
            {
                "prediction": [task.labels[k] for k in (logits > 0).nonzero()[0]],
                **{f"{column}_{k}": float(v) for k, v in zip(task.labels, row, strict=True)},
            }
            for logits, row in zip(outputs["logits"], values, strict=True)
        ]

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """scikit-learn's scores, and the mean binary cross-entropy as ``loss``."""
        import numpy as np
        from sklearn.metrics import accuracy_score, f1_score

        logits = finite(outputs["logits"])
        truth = np.array(self.targets(task, rows["label"][:]))
        found = {
            "micro_f1": f1_score(truth, logits > 0, average="micro", zero_division=0.0),
            "macro_f1": f1_score(truth, logits > 0, average="macro", zero_division=0.0),
            "accuracy": accuracy_score(truth, logits > 0),
        }
        loss = np.logaddexp(0.0, logits) - truth * logits
        return {name: float(found[name]) for name in task.metrics} | {"loss": float(loss.mean())}

    def gold(self, task: Task, label: Sequence[int]) -> list[str]:
        """The names of the classes."""
        return [task.labels[k] for k in label]


def _holds(name: str, cell: Any) -> bool:
    told = str(cell).strip().lower()
    if told not in _TRUTH:
        raise ValueError(f"of class {name!r} holds {cell!r}; 0 or 1 is wanted")
    return _TRUTH[told]
