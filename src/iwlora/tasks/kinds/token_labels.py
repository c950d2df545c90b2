"""Token classification: a class for each word of a text, such as named entities."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, ClassVar

from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.collators import IGNORE_INDEX, PaddingCollator
from iwlora.tasks.floors.constant import most_frequent
from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.kinds.cells import parse_list
from iwlora.tasks.kinds.contract import (
    Batch,
    Dataset,
    EncodingInput,
    Evaluation,
    Prediction,
    Tensor,
)
from iwlora.tasks.kinds.heads import TokenLoss
from iwlora.tasks.metrics.logits import Average, finite_logits, mean_class_logits
from iwlora.tasks.metrics.token_labels import token_label_scores
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.tokenization import check_fast, check_max_length, encode_in_chunks

_ENTITY_LABEL = re.compile(r"O|[BIESLU]-.+")


class TokenLabels(TokenLoss):
    """Cross-entropy at the first token of each word.

    Words that truncation cuts off are scored too: they get the prediction ``O``, or the first
    class where there is no ``O``.
    """

    name: ClassVar[str] = "token-labels"
    summary: ClassVar[str] = "a class for each word; words and labels are lists, or space-separated"
    text_columns: ClassVar[tuple[int, int]] = (1, 1)
    column_types: ClassVar[tuple[Any, Any, Any]] = (list[str], list[str], list[int])

    not_averaged: ClassVar[str] = ""
    averages: ClassVar[tuple[Average, ...]] = ("probabilities", "logits")
    floor_limits: ClassVar[tuple[int, int]] = (1000, 200_000)
    default_metrics: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "accuracy")
    """F1, precision and recall of entities, then accuracy of words."""

    def metrics_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Entity metrics where all classes are ``O`` or begin with ``B-``, ``I-``, …; otherwise
        accuracy, and the mean over classes of F1."""
        if all(_ENTITY_LABEL.fullmatch(name) for name in labels):
            return self.metrics
        return ("accuracy", "macro_f1")

    def parse_text(self, value: Any) -> list[str]:
        """The words: a list, JSON, or text with spaces between."""
        words = parse_list(value, None)
        if not words:
            raise ValueError("is empty")
        return words

    def parse_label(self, value: Any) -> list[str]:
        """The class of each word."""
        return parse_list(value, None)

    def complete_label(self, texts: Sequence[Any], label: list[str]) -> list[str]:
        """The label, where it has as many classes as there are words."""
        (words,) = texts
        if len(words) != len(label):
            raise ValueError(f"{len(words)} words and {len(label)} labels")
        return label

    auto_class_name: ClassVar[str] = "AutoModelForTokenClassification"

    def encode(self, data: EncodingInput) -> Dataset:
        """The words joined by spaces; ``first_tokens`` holds the index of each word's first token.

        Works with every fast tokenizer: only these report the characters of each token.
        """
        tokenizer = data.processor
        check_max_length(tokenizer, data.max_length, 1)
        check_fast(tokenizer)
        (words,), labels = data.texts, data.labels

        def encode_chunk(start: int, stop: int) -> dict[str, Any]:
            part = words[start:stop]
            encoded = tokenizer(
                [" ".join(row) for row in part],
                truncation=True,
                max_length=data.max_length,
                return_offsets_mapping=True,
            )
            offsets = encoded.pop("offset_mapping")
            firsts = [_first_tokens(row, spans) for row, spans in zip(part, offsets, strict=True)]
            columns = {**encoded, "first_tokens": firsts}
            if labels is not None:
                rows = zip(labels[start:stop], firsts, encoded["input_ids"], strict=True)
                columns["labels"] = [_labels_at(row, tokens, len(ids)) for row, tokens, ids in rows]
            return columns

        return encode_in_chunks(len(data.rows), encode_chunk)

    def collator(self, tokenizer: Any, model: Any) -> PaddingCollator:
        """Pads token ids and labels."""
        return PaddingCollator.from_tokenizer(tokenizer, labels=IGNORE_INDEX)

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """The logits of every token, and with labels each row's loss and number of words."""
        outputs = super().outputs(model, tokenizer, batch, final)
        if "labels" in batch:
            outputs |= self.row_losses(outputs["logits"], batch["labels"])
        return outputs

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The class of each word, as a list."""
        names = evaluation.schema.labels
        classes = finite_logits(evaluation.outputs["logits"]).argmax(axis=-1)
        cut_off = "O" if "O" in names else names[0]
        return [
            {"prediction": [cut_off if k < 0 else names[int(row[k])] for k in first_tokens]}
            for row, first_tokens in zip(classes, evaluation.encoded["first_tokens"], strict=True)
        ]

    def average(
        self, outputs: Sequence[Mapping[str, Any]], weights: Any, average: Average
    ) -> dict[str, Any]:
        """Logits of the mean, token by token."""
        logits = [of_model["logits"] for of_model in outputs]
        return {"logits": mean_class_logits(logits, weights, average)}

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """seqeval's scores of entities, scikit-learn's of words; ``loss`` over the words read."""
        predicted = [row["prediction"] for row in predictions]
        references, metrics = self.references(evaluation), evaluation.schema.metrics
        scores = token_label_scores(references, predicted, metrics)
        return scores | {"loss": self.mean_loss(evaluation)}

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """The most frequent class of all words, and that of each word."""
        (column,), texts = schema.text, scored[schema.text[0]][:]
        by_word = defaultdict[str, list[int]](list)
        for words, ids in zip(train[column][:], train["label"][:], strict=True):
            for word, class_id in zip(words, ids, strict=True):
                by_word[word].append(class_id)
        most = schema.labels[most_frequent(chain.from_iterable(by_word.values()))]
        of_word = {word: schema.labels[most_frequent(ids)] for word, ids in by_word.items()}
        constant = [{"prediction": [most] * len(words)} for words in texts]
        known = [{"prediction": [of_word.get(word, most) for word in words]} for words in texts]
        return [
            Floor("most frequent class", constant, trivial=True),
            Floor("most frequent class of each word", known),
        ]

    def prediction_scores(
        self,
        schema: TaskSchema,
        references: Sequence[Sequence[str]],
        predictions: Sequence[Sequence[str]],
    ) -> dict[str, float]:
        """All metrics but the loss."""
        return token_label_scores(references, predictions, schema.metrics)

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, Any]:
        """Both are the classes of the words."""
        return from_json(row["label"]), from_json(row["prediction"])


def _first_tokens(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The index of each word's first token in the words joined by spaces; -1: it was cut off.

    A token belongs to the word of its last character: it may begin with the space before.

    >>> _first_tokens(["It", "rains"], [(0, 0), (0, 2), (2, 6), (6, 8), (0, 0)])
    [1, 2]
    """
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))[:-1]
    firsts = [-1] * len(words)
    for token, (begin, end) in enumerate(spans):
        word = bisect_left(starts, end) - 1
        if end > begin and firsts[word] < 0:
            firsts[word] = token
    return firsts


def _labels_at(labels: Sequence[int], tokens: Sequence[int], length: int) -> list[int]:
    """A list of ``length`` token labels: each label at its token, the others ignored."""
    token_labels = [IGNORE_INDEX] * length
    for label, token in zip(labels, tokens, strict=True):
        if token >= 0:
            token_labels[token] = label
    return token_labels
