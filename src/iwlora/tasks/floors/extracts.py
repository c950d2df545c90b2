"""What copies from the source: its first sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import regex

from iwlora.tasks.metrics.scripts import unicode_tokens

_SENTENCE_END = regex.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")


def median_words(texts: Sequence[str]) -> int:
    """The median number of words, at least 1.

    >>> median_words(["a b", "a b c d"])
    3
    """
    return max(1, int(median(len(unicode_tokens(text)) for text in texts)))


def first_sentences(source: str, words: int) -> str:
    """The first sentences of a text that together have as many words, or all of them.

    >>> first_sentences("It rains. It is wet. He left.", 4)
    'It rains. It is wet.'
    """
    taken = []
    for sentence in filter(None, map(str.strip, _SENTENCE_END.split(source))):
        taken.append(sentence)
        words -= len(unicode_tokens(sentence))
        if words <= 0:
            break
    return " ".join(taken)
