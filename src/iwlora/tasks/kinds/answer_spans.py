"""Windows over long passages, and the best answer span in a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.tasks.kinds.contract import Dataset, EncodingInput
from iwlora.tasks.tokenization import encode_in_chunks

Spans = Sequence[tuple[int, int]]


def encode_windows(data: EncodingInput, max_question: int, stride: int) -> Dataset:
    """Every window of ``max_length`` tokens over a question and its passage."""
    tokenizer, labels = data.processor, data.labels
    questions, passages = data.texts
    # Where the tokenizer puts no special token between the texts of a pair, a line break does.
    separator = "" if tokenizer.num_special_tokens_to_add(True) > 1 else "\n"

    def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
        texts = [_truncated(text, tokenizer, max_question) for text in questions[start:stop]]
        encoded = tokenizer(
            [text + separator for text in texts],
            passages[start:stop],
            truncation="only_second",
            max_length=data.max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        rows = [start + sample for sample in encoded.pop("overflow_to_sample_mapping")]
        windows = [
            _passage_spans(encoded.sequence_ids(window), offsets)
            for window, offsets in enumerate(encoded.pop("offset_mapping"))
        ]
        columns = {**encoded, "row": rows}
        if labels is not None:
            part = labels[start:stop]
            pairs = zip(rows, windows, strict=True)
            columns["labels"] = [_target_tokens(part[row - start], spans) for row, spans in pairs]
        if not data.training:
            columns["starts"] = [[start for start, _ in spans] for spans in windows]
            columns["ends"] = [[end for _, end in spans] for spans in windows]
        return columns

    return encode_in_chunks(len(data.rows), encode_chunk)


def _truncated(question: str, tokenizer: Any, max_tokens: int) -> str:
    """The first ``max_tokens`` tokens of a question, as text."""
    question = question.strip()
    if len(question) <= max_tokens:
        return question  # every token has at least one character
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in offsets["offset_mapping"]]
    return question if len(ends) <= max_tokens else question[: ends[max_tokens - 1]]


def _passage_spans(sequences: Sequence[int | None], offsets: Spans) -> Spans:
    """(start, end) of each passage token, in characters; (-1, -1) for other tokens."""
    pairs = zip(sequences, offsets, strict=True)
    return [offset if sequence == 1 else (-1, -1) for sequence, offset in pairs]


def _target_tokens(label: Mapping[str, Any], spans: Spans) -> list[int]:
    """The tokens where the first answer begins and ends; [0, 0] if it is not all in the window.

    >>> label = {"text": ["cat sat"], "answer_start": [4]}
    >>> _target_tokens(label, [(-1, -1), (0, 3), (3, 7), (7, 11), (-1, -1)])
    [2, 3]
    >>> _target_tokens(label, [(-1, -1), (0, 3), (3, 7), (-1, -1)])
    [0, 0]
    """
    if not label["text"]:
        return [0, 0]
    begin = label["answer_start"][0]
    last = begin + len(label["text"][0]) - 1
    tokens = [
        [token for token, (start, end) in enumerate(spans) if start <= character < end]
        for character in (begin, last)
    ]
    return [first[0] for first in tokens] if all(tokens) else [0, 0]


def best_span(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    token_starts: Sequence[int],
    token_ends: Sequence[int],
    n_best: int,
    max_answer: int,
) -> tuple[float, int, int]:
    """The span of a window with the largest start + end logit.

    Args:
        start: Start logits, (tokens,).
        end: End logits, (tokens,).
        token_starts: First character of each token in the passage; -1 for other tokens.
        token_ends: The character after the last one of each token; -1 for other tokens.
        n_best: How many of the best starts and ends are considered.
        max_answer: Tokens of the longest span.

    Returns:
        (start + end logit, first character, character after the last one); (-inf, 0, 0) where no
        span has 1 to ``max_answer`` tokens.

    Example:
        >>> best_span(np.array([9.0, 1, 3, 0]), np.array([9.0, 2, 0, 1]), [-1, 0, 4, 8],
        ...           [-1, 3, 7, 11], n_best=2, max_answer=2)
        (4.0, 4, 11)
    """
    inside = np.flatnonzero(np.asarray(token_ends) > np.asarray(token_starts))
    firsts = inside[np.argsort(-start[inside], kind="stable")[:n_best]]
    lasts = inside[np.argsort(-end[inside], kind="stable")[:n_best]]
    sums = start[firsts][:, None] + end[lasts][None, :]
    lengths = lasts[None, :] - firsts[:, None] + 1
    sums = np.where((lengths >= 1) & (lengths <= max_answer), sums, -np.inf)
    if not sums.size or np.isneginf(sums.max()):
        return float("-inf"), 0, 0
    i, j = np.unravel_index(int(sums.argmax()), sums.shape)
    return float(sums[i, j]), token_starts[firsts[i]], token_ends[lasts[j]]
