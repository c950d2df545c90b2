"""How often which word is in a text, as features of a linear model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iwlora.tasks.metrics.scripts import unicode_tokens

MOST_ROWS = 20_000
MOST_CHARACTERS = 5_000_000
MOST_WORDS = 4096


def bounded_rows(
    columns: Sequence[Sequence[str]],
    most_rows: int = MOST_ROWS,
    most_characters: int = MOST_CHARACTERS,
) -> range:
    """Evenly spaced rows, as many as the limits on rows and characters allow.

    Args:
        columns: The texts of all rows, one sequence for each text column.
        most_rows: The largest number of rows.
        most_characters: About the largest number of characters in them.

    Example:
        >>> bounded_rows([["a"] * 50_000])
        range(0, 50000, 3)
    """
    rows = len(columns[0])
    characters = sum(len(text) for column in columns for text in column)
    step = max(-(-rows // most_rows), -(-characters // most_characters), 1)
    return range(0, rows, step)


def word_features(
    train: Sequence[Sequence[str]], scored: Sequence[Sequence[str]]
) -> tuple[Any, Any]:
    """TF-IDF of words, from the training texts: (training rows, words), (scored rows, words).

    Each text column has its own words, at most ``MOST_WORDS``, the commonest. A character of a
    script without spaces counts as a word.

    Args:
        train: The training texts, one sequence for each text column.
        scored: The same of the scored rows.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    parts = []
    for texts, scored_texts in zip(train, scored, strict=True):
        words = TfidfVectorizer(
            lowercase=False, tokenizer=unicode_tokens, token_pattern=None, max_features=MOST_WORDS
        )
        try:
            parts.append((words.fit_transform(texts), words.transform(scored_texts)))
        except ValueError:  # scikit-learn's, for texts without a word
            empty = [csr_matrix((len(column), 1)) for column in (texts, scored_texts)]
            parts.append((empty[0], empty[1]))
    fitted, transformed = zip(*parts, strict=True)
    return hstack(fitted, format="csr"), hstack(transformed, format="csr")
