"""Windows over long passages, and the best span in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from iwlora.tasks.tokenization import CHUNK, small

if TYPE_CHECKING:
    import datasets


def windows(
    rows: datasets.Dataset,
    text: Sequence[str],
    tokenizer: Any,
    max_length: int,
    max_question: int,
    stride: int,
    training: bool,
) -> datasets.Dataset:
    """Every window of ``max_length`` tokens over a question and its passage."""
    import datasets

    # Where nothing stands between the two texts of a pair, a line break does.
    between = "" if tokenizer.num_special_tokens_to_add(True) > 1 else "\n"
    chunks = []
    for first in range(0, len(rows), CHUNK):
        part = rows[first : first + CHUNK]
        questions = [
            _shortened(question, tokenizer, max_question) + between for question in part[text[0]]
        ]
        encoded = tokenizer(
            questions,
            part[text[1]],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        found = {
            name: list(encoded[name])
            for name in ("input_ids", "attention_mask", "token_type_ids")
            if name in encoded
        }
        local = encoded["overflow_to_sample_mapping"]
        spans = [
            _in_passage(encoded.sequence_ids(window), offsets)
            for window, offsets in enumerate(encoded["offset_mapping"])
        ]
        if "label" in part:
            found["labels"] = [
                _target(part["label"][row], *places)
                for row, places in zip(local, spans, strict=True)
            ]
        if not training:
            found["starts"] = [starts for starts, _ in spans]
            found["ends"] = [ends for _, ends in spans]
        found["row"] = [first + row for row in local]
        found["length"] = [len(ids) for ids in found["input_ids"]]
        chunks.append(datasets.Dataset.from_dict({k: small(k, v) for k, v in found.items()}))
    return datasets.concatenate_datasets(chunks)


def _shortened(question: str, tokenizer: Any, limit: int) -> str:
    """The question without what is beyond ``limit`` tokens."""
    question = question.strip()
    if len(question) <= limit:
        return question  # a token has a character at least
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in offsets["offset_mapping"]]
    return question if len(ends) <= limit else question[: ends[limit - 1]]


def _in_passage(
    sequences: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """(starts, ends) of the passage's tokens in it; -1 for other tokens."""
    places = [
        offset if sequence == 1 else (-1, -1)
        for sequence, offset in zip(sequences, offsets, strict=True)
    ]
    return [start for start, _ in places], [end for _, end in places]


def _target(label: Mapping[str, Any], starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens in which the first answer begins and ends; the first token if not all is here.

    >>> _target({"text": ["cat sat"], "answer_start": [4]}, [-1, 0, 3, 7, -1], [-1, 3, 7, 11, -1])
    [2, 3]
    >>> _target({"text": ["cat sat"], "answer_start": [4]}, [-1, 0, 3, -1], [-1, 3, 7, -1])
    [0, 0]
    """
    if not label["text"]:
        return [0, 0]
    begin = label["answer_start"][0]
    last = begin + len(label["text"][0]) - 1
    first_token = next((k for k, end in enumerate(ends) if starts[k] <= begin < end), None)
    last_token = next((k for k, end in enumerate(ends) if starts[k] <= last < end), None)
    if first_token is None or last_token is None:
        return [0, 0]
    return [first_token, last_token]


def best_span(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    begins: Sequence[int],
    stops: Sequence[int],
    n_best: int,
    max_answer: int,
) -> tuple[float, int, int]:
    """(start + end, first character, character after the last) of the best span in a window.

    ``start`` and ``end`` are logits of tokens, ``begins`` and ``stops`` their places in the
    passage, -1 for a token outside. Only the ``n_best`` starts and ends are considered.
    (-inf, 0, 0) where no span has 1 to ``max_answer`` tokens.

    >>> best_span(np.array([9.0, 1, 3, 0]), np.array([9.0, 2, 0, 1]), [-1, 0, 4, 8], [-1, 3, 7, 11],
    ...           n_best=2, max_answer=2)
    (4.0, 4, 11)
    """
    inside = np.flatnonzero(np.asarray(stops) > np.asarray(begins))
    firsts = inside[np.argsort(-start[inside], kind="stable")[:n_best]]
    lasts = inside[np.argsort(-end[inside], kind="stable")[:n_best]]
    sums = start[firsts][:, None] + end[lasts][None, :]
    lengths = lasts[None, :] - firsts[:, None] + 1
    sums = np.where((lengths >= 1) & (lengths <= max_answer), sums, -np.inf)
    if not sums.size or np.isneginf(sums.max()):
        return float("-inf"), 0, 0
    i, j = np.unravel_index(int(sums.argmax()), sums.shape)
    return float(sums[i, j]), begins[firsts[i]], stops[lasts[j]]
