"""A class for each word of a text: names, parts of speech."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.base import Answer, Kind, Outputs, Rows, finite, plain_list
from iwlora.tasks.kinds.classification import name_classes
from iwlora.tasks.tokenization import check_length, in_chunks

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

    from iwlora.tasks.task import Task

IGNORED = -100
_ENTITY = re.compile(r"O|[BIESLU]-.+")


class TokenLabels(Kind):
    """Cross-entropy at the first token of each word.

    A word that truncation cuts away is answered ``O``, or the first class where there is no
    ``O``, and is scored.
    """

    name: ClassVar[str] = "token-labels"
    summary: ClassVar[str] = "a class for each word: words and labels as lists, or blanks between"
    columns: ClassVar[tuple[int, int]] = (1, 1)

    @property
    def metrics(self) -> tuple[str, ...]:
        """F1 of entities, where the classes are ``B-`` and ``I-``; else accuracy comes first."""
        return ("f1", "precision", "recall", "accuracy")

    def metrics_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Entities are scored where all classes are ``O`` or begin with ``B-``, ``I-``, …"""
        if all(_ENTITY.fullmatch(name) for name in labels):
            return self.metrics
        return ("accuracy", "macro_f1")

    def text(self, value: Any) -> list[str]:
        """The words: a list, JSON, or text with blanks between."""
        words = plain_list(value, None)
        if not words:
            raise ValueError("is empty")
        return words

    def label(self, value: Any) -> list[str]:
        """The class of each word."""
        return plain_list(value, None)

    def classes(self, label: list[str]) -> Sequence[str]:
        """Those of all words."""
        return label

    def numbered(self, label: list[str], ids: Mapping[str, int]) -> list[int]:
        """Class ids."""
        return [ids[name] for name in label]

    def check(self, row: Sequence[Any]) -> None:
        """As many labels as words."""
        words, labels = row
        if len(words) != len(labels):
            raise ValueError(f"{len(words)} words and {len(labels)} labels")

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Words, class names, class ids."""
        import pyarrow

        words = pyarrow.list_(pyarrow.string())
        return words, words, pyarrow.list_(pyarrow.int64())

    def auto_class(self, config: Any) -> Any:
        """A model with a head on every token."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """As many logits as there are classes, and their names."""
        name_classes(config, labels)

    def encode(
        self,
        task: Task,
        rows: datasets.Dataset,
        tokenizer: Any,
        max_length: int,
        config: Any,
        training: bool,
    ) -> datasets.Dataset:
        """The words with blanks between; ``firsts`` holds where each word's first token is.

        Works with every tokenizer that tells where its tokens stand in the text.
        """
        check_length(tokenizer, max_length, 1)
        if not tokenizer.is_fast:
            raise IwloraError(
                f"{type(tokenizer).__name__} does not tell which token belongs to which word; "
                "take a model with a fast tokenizer"
            )
        words, labels = rows[task.text[0]], rows["label"] if "label" in rows.column_names else None

        def chunk(start: int, stop: int) -> dict[str, Any]:
            part = words[start:stop]
            encoded = tokenizer(
                [" ".join(row) for row in part],
                truncation=True,
                max_length=max_length,
                return_offsets_mapping=True,
            )
            offsets = encoded.pop("offset_mapping")
            firsts = [_firsts(row, spans) for row, spans in zip(part, offsets, strict=True)]
            columns = {**encoded, "firsts": firsts}
            if labels is not None:
                columns["labels"] = [
                    _spread(row, places, len(ids))
                    for row, places, ids in zip(
                        labels[start:stop], firsts, encoded["input_ids"], strict=True
                    )
                ]
            return columns

        return in_chunks(len(rows), chunk)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[Rows], dict[str, Tensor]]:
        """Padded token ids and labels."""
        from iwlora.tasks.padding import padding

        return padding(tokenizer, labels=IGNORED)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over words."""
        from torch.nn.functional import cross_entropy

        logits = outputs.logits.float().flatten(0, 1)
        return cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def count(self, labels: Tensor) -> Tensor:
        """The words."""
        return (labels != IGNORED).sum()

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """The class of each word, as a list."""
        best = finite(outputs["logits"]).argmax(axis=-1)
        rest = "O" if "O" in task.labels else task.labels[0]
        return [
            {"prediction": [rest if at < 0 else task.labels[int(row[at])] for at in firsts]}
            for row, firsts in zip(best, encoded["firsts"], strict=True)
        ]

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """seqeval's scores of entities, scikit-learn's of words; ``loss`` over the words read."""
        from iwlora.tasks.metrics.text import word_scores

        truth = [self.gold(task, label) for label in rows["label"]]
        scores = word_scores(truth, [answer["prediction"] for answer in answers], task.metrics)
        total, count = outputs["loss"].sum(), outputs["count"].sum()
        return scores | {"loss": float(total / max(count, 1))}

    def outputs(
        self, model: Any, tokenizer: Any, batch: Mapping[str, Tensor], final: bool
    ) -> dict[str, Tensor]:
        """The logits of every token, and with labels the loss of each row and its words."""
        from torch.nn.functional import cross_entropy

        found = super().outputs(model, tokenizer, batch, final)
        if "labels" in batch:
            logits = found["logits"].mT
            losses = cross_entropy(logits, batch["labels"], reduction="none", ignore_index=IGNORED)
            found |= {"loss": losses.sum(-1), "count": (batch["labels"] != IGNORED).sum(-1)}
        return found

    def gold(self, task: Task, label: Sequence[int]) -> list[str]:
        """The class of each word."""
        return [task.labels[k] for k in label]


def _firsts(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The place of each word's first token in the words joined by blanks; -1: it was cut away.

    A token belongs to the word of its last character: it may begin with the blank before.

    >>> _firsts(["It", "rains"], [(0, 0), (0, 2), (2, 6), (6, 8), (0, 0)])
    [1, 2]
    """
    starts, at = [], 0
    for word in words:
        starts.append(at)
        at += len(word) + 1
    firsts, at = [-1] * len(words), 0
    for place, (begin, end) in enumerate(spans):
        if end <= begin:
            continue
        while at + 1 < len(starts) and starts[at + 1] <= end - 1:
            at += 1
        if firsts[at] < 0 and starts[at] <= end - 1:
            firsts[at] = place
    return firsts


def _spread(labels: Sequence[int], firsts: Sequence[int], length: int) -> list[int]:
    spread = [IGNORED] * length
    for label, place in zip(labels, firsts, strict=True):
        if place >= 0:
            spread[place] = label
    return spread
