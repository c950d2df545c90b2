"""The metrics of SQuAD: exact match, and F1 of words."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces.

    >>> normalize_answer("The  Cat's meow!")
    'cats meow'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def squad_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """``f1`` and ``exact_match`` of SQuAD, in [0, 1].

    For each question the best score over its reference answers counts. F1 is
    2·common / (words of both). A question without references has the answer "".

    Args:
        predictions: One answer per question.
        references: The accepted answers of each question.

    Returns:
        ``f1`` and ``exact_match``. Where only some questions have an answer,
        ``f1_answerable`` and ``f1_unanswerable`` too.

    Example:
        >>> squad_scores(["the big cat", ""], [["a cat", "dog"], []])["f1"]
        0.8333333333333333

    Source:
        Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822).
    """
    exact, f1 = [], []
    for prediction, answers in zip(predictions, references, strict=True):
        # As in the official script, references that normalise to nothing do not count.
        accepted = [answer for answer in answers if normalize_answer(answer)] or [""]
        normalized = normalize_answer(prediction)
        exact.append(float(any(normalized == normalize_answer(answer) for answer in accepted)))
        f1.append(max(_word_f1(prediction, answer) for answer in accepted))
    scores = {"f1": _mean(f1), "exact_match": _mean(exact)}
    parts = {
        "f1_answerable": [value for value, answers in zip(f1, references, strict=True) if answers],
        "f1_unanswerable": [v for v, answers in zip(f1, references, strict=True) if not answers],
    }
    if all(parts.values()):
        scores |= {name: _mean(values) for name, values in parts.items()}
    return scores


def _word_f1(prediction: str, reference: str) -> float:
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(reference).split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
