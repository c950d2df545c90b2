"""The metrics of SQuAD: exact match, and F1 of words; of MLQA for scripts other than Latin."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Literal

import regex

from iwlora.tasks.metrics.scripts import UNSPACED, count_letters

Normalization = Literal["squad", "mlqa", "mlqa-arabic", "mlqa-unspaced"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNSPACED = regex.compile(rf"[{UNSPACED}]\p{{M}}*")


def normalize_answer(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces.

    >>> normalize_answer("The  Cat's meow!")
    'cats meow'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def normalization_for(references: Sequence[Sequence[str]]) -> Normalization:
    """The normalization for the script of most letters in the accepted answers.

    ``squad`` for Latin letters; MLQA's for other scripts: it removes all punctuation of Unicode and
    no English articles, in Arabic the article, and counts each character of scripts that write no
    spaces between words (Chinese, Japanese, Thai, ...) as a word.

    >>> normalization_for([["the cat"]]), normalization_for([["\u5317\u4eac"]])
    ('squad', 'mlqa-unspaced')
    """
    counts = count_letters(chain.from_iterable(references))
    if 2 * counts.latin >= counts.letters:
        return "squad"
    if 2 * counts.unspaced >= counts.letters:
        return "mlqa-unspaced"
    return "mlqa-arabic" if 2 * counts.arabic >= counts.letters else "mlqa"


def _mlqa_words(answer: str) -> str:
    """An answer as MLQA compares it in a language with spaces and without articles."""
    return " ".join(answer.lower().translate(_unicode_punctuation()).split())


def _mlqa_arabic(answer: str) -> str:
    """As ``_mlqa_words``, without the Arabic article."""
    text = answer.lower().translate(_unicode_punctuation())
    return " ".join(text.replace("\u0627\u0644", " ").split())


def _mlqa_unspaced(answer: str) -> str:
    """As ``_mlqa_words``, with spaces around each character of a script that writes none."""
    text = answer.lower().translate(_unicode_punctuation())
    return " ".join(_UNSPACED.sub(r" \g<0> ", text).split())


_NORMALIZERS: dict[Normalization, Callable[[str], str]] = {
    "squad": normalize_answer,
    "mlqa": _mlqa_words,
    "mlqa-arabic": _mlqa_arabic,
    "mlqa-unspaced": _mlqa_unspaced,
}


@cache
def _unicode_punctuation() -> dict[int, None]:
    """ASCII's punctuation and all of Unicode's, to delete."""
    marks = (i for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P"))
    return dict.fromkeys([*marks, *_PUNCTUATION])


def squad_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    normalization: Normalization | None = None,
) -> dict[str, float]:
    """``f1`` and ``exact_match`` of SQuAD, in [0, 1].

    For each question the best score over its reference answers counts. F1 is
    2·common / (words of both). A question without references has the answer "".

    Args:
        predictions: One answer per question.
        references: The accepted answers of each question.
        normalization: How answers are compared; None: :func:`normalization_for` the references.

    Returns:
        ``f1`` and ``exact_match``. Where only some questions have an answer,
        ``f1_answerable`` and ``f1_unanswerable`` too.

    Example:
        >>> squad_scores(["the big cat", ""], [["a cat", "dog"], []])["f1"]
        0.8333333333333333

    Source:
        Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822); Lewis et al. 2020,
        MLQA (arXiv 1910.07475), for other scripts.
    """
    normalize = _NORMALIZERS[normalization or normalization_for(references)]
    exact, f1 = [], []
    for prediction, answers in zip(predictions, references, strict=True):
        # As in the official script, references that normalize to nothing do not count.
        accepted = [text for answer in answers if (text := normalize(answer))] or [""]
        normalized = normalize(prediction)
        exact.append(float(normalized in accepted))
        f1.append(max(_word_f1(normalized, answer) for answer in accepted))
    scores = {"f1": _mean(f1), "exact_match": _mean(exact)}
    parts = {
        "f1_answerable": [value for value, answers in zip(f1, references, strict=True) if answers],
        "f1_unanswerable": [v for v, answers in zip(f1, references, strict=True) if not answers],
    }
    if all(parts.values()):
        scores |= {name: _mean(values) for name, values in parts.items()}
    return scores


def _word_f1(prediction: str, reference: str) -> float:
    """Of two normalized answers."""
    predicted, expected = prediction.split(), reference.split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
