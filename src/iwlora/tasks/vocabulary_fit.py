"""How well a tokenizer's vocabulary fits the texts of a task, and in which scripts they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import regex

from iwlora.tasks.kinds.contract import Dataset
from iwlora.tasks.kinds.generation.chat import parse_messages
from iwlora.tasks.task import Task

MOST_UNKNOWN = 0.01
"""The share of unknown tokens from which on a vocabulary does not fit."""
MOST_TOKENS_PER_CHARACTER = 1.0
"""The same for vocabularies of bytes, which know every text and divide foreign letters."""
# These are read; more texts of the same kind change the shares little.
FIRST_CHARACTERS = 1_000_000
_TEXTS_AT_A_TIME = 256

_SCRIPTS = {
    name: regex.compile(rf"\p{{Script={name}}}")
    for name in (
        *("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Bengali", "Tamil"),
        *("Telugu", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao"),
        *("Khmer", "Myanmar", "Tibetan", "Georgian", "Armenian", "Ethiopic", "Mongolian"),
        *("Hangul", "Han", "Hiragana", "Katakana"),
    )
}
_LETTER = regex.compile(r"\p{L}")


@dataclass(frozen=True)
class VocabularyFit:
    """How a tokenizer divides texts.

    Args:
        unknown: The share of the tokens that stand for what the vocabulary lacks, from 0 to 1.
        per_character: Tokens per character.
        scripts: {script: its share of the letters}, the largest first; "other" for rare ones.
        rows: The rows that were read.
    """

    unknown: float
    per_character: float
    scripts: Mapping[str, float]
    rows: int

    @property
    def is_foreign(self) -> bool:
        """Whether the vocabulary was not made for texts like these."""
        return self.unknown > MOST_UNKNOWN or self.per_character > MOST_TOKENS_PER_CHARACTER


def vocabulary_fit(task: Task, split: Dataset, tokenizer: Any) -> VocabularyFit:
    """Tokenize the first million characters of a split, without special tokens, and count.

    Args:
        task: The task.
        split: One of its splits.
        tokenizer: The tokenizer of the model.

    Example:
        >>> from transformers import BertTokenizerFast
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> vocab = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "rain", "in"])}
        >>> split = dataset_from_rows(["text"], [("rain in Bonn", 0), ("rain", 1)])
        >>> task = Task("t", ("text",), ("x", "y"), ("accuracy",), splits={"train": split})
        >>> fit = vocabulary_fit(task, split, BertTokenizerFast(vocab=vocab))
        >>> fit.unknown, fit.per_character, fit.scripts
        (0.25, 0.25, {'Latin': 1.0})
    """
    characters = tokens = unknown = rows = 0
    counts: Counter[str] = Counter()
    for batch in split.iter(_TEXTS_AT_A_TIME):
        texts = list(_texts(task, batch))
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        tokens += sum(map(len, encoded))
        unknown += sum(ids.count(tokenizer.unk_token_id) for ids in encoded)
        for text in texts:
            characters += len(text)
            counts.update(text)
        rows += len(batch[task.text[0]])
        if characters > FIRST_CHARACTERS:
            break
    shares = script_shares(counts)
    return VocabularyFit(unknown / max(tokens, 1), tokens / max(characters, 1), shares, rows)


def script_shares(characters: Mapping[str, int]) -> dict[str, float]:
    """{script: its share of the letters}, the largest first, from how often each character occurs.

    >>> script_shares(Counter("Berlin, \u5317\u4eac 2008"))
    {'Latin': 0.75, 'Han': 0.25}
    """
    counts: Counter[str] = Counter()
    for character, count in characters.items():
        if _LETTER.match(character):
            names = (name for name, pattern in _SCRIPTS.items() if pattern.match(character))
            counts[next(names, "other")] += count
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()}


def _texts(task: Task, batch: Mapping[str, Any]) -> Iterator[str]:
    """The words of rows: texts, lists of words, the contents of messages, texts to generate."""
    for name in (*task.text, *(() if task.labels else ("label",))):
        for value in batch.get(name, ()):
            if isinstance(value, list):
                yield " ".join(value)
            elif isinstance(value, str):
                yield from _contents(value)


def _contents(text: str) -> Iterator[str]:
    """The contents of the messages of a chat; any other text as it is."""
    try:
        messages = parse_messages(text)
    except ValueError:  # a text of another kind of task that only looks like a chat
        messages = None
    for message in messages or [{"content": text}]:
        if isinstance(message.get("content"), str):
            yield message["content"]
