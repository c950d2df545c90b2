"""Metrics of words and texts; all in [0, 1], computed by libraries that fetch nothing."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.errors import IwloraError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single blanks.

    >>> normalized("The  Cat's meow!")
    'cats meow'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def squad_scores(answers: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """SQuAD's ``f1`` and ``exact_match`` (Rajpurkar et al. 2016, 2018), the best over the golds.

    F1 is of words, 2·common / (words in both). A question without golds has the answer "".
    Where some but not all questions have golds, ``f1_answerable`` and ``f1_unanswerable`` tell
    them apart.

    >>> squad_scores(["the big cat", ""], [["a cat", "dog"], []])["f1"]
    0.8333333333333333
    """
    exact, f1 = [], []
    for answer, accepted in zip(answers, golds, strict=True):
        # As the official scorer: golds that normalise to nothing do not count.
        own = [gold for gold in accepted if normalized(gold)] or [""]
        exact.append(float(any(normalized(answer) == normalized(gold) for gold in own)))
        f1.append(max(_word_f1(answer, gold) for gold in own))
    scores = {"f1": _mean(f1), "exact_match": _mean(exact)}
    parts = {
        "f1_answerable": [value for value, gold in zip(f1, golds, strict=True) if gold],
        "f1_unanswerable": [value for value, gold in zip(f1, golds, strict=True) if not gold],
    }
    if all(parts.values()):
        scores |= {name: _mean(values) for name, values in parts.items()}
    return scores


def _word_f1(answer: str, gold: str) -> float:
    ours, theirs = normalized(answer).split(), normalized(gold).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def rouge(texts: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """Mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), words stemmed, by rouge-score.

    >>> rouge(["the cats sat"], ["a cat sat"])["rouge2"]
    0.5
    """
    scorer = _library("rouge_score.rouge_scorer")
    names = list(NAMES["rouge"])
    measure = scorer.RougeScorer(names, use_stemmer=True)
    found = [measure.score(gold, text) for text, gold in zip(texts, golds, strict=True)]
    return {name: _mean([one[name].fmeasure for one in found]) for name in names}


def bleu(texts: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """BLEU of the whole corpus (Post 2018) as sacreBLEU's defaults compute it, divided by 100.

    >>> bleu(["the cat sat on the mat"], ["the cat sat on the mat"])
    {'bleu': 1.0}
    """
    sacrebleu = _library("sacrebleu")
    score = sacrebleu.corpus_bleu(list(texts), [list(golds)]).score
    return {"bleu": round(score / 100, 12)}


def exact_match(texts: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """Share of texts equal to their gold, blanks at the ends apart.

    >>> exact_match(["42 ", "no"], ["42", "yes"])
    {'exact_match': 0.5}
    """
    pairs = zip(texts, golds, strict=True)
    return {"exact_match": _mean([float(text.strip() == gold.strip()) for text, gold in pairs])}


def word_scores(
    golds: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], metrics: Sequence[str]
) -> dict[str, float]:
    """Scores of word labels: F1, precision, recall of whole entities by seqeval; accuracy and
    the mean F1 of the classes, over words, by scikit-learn.

    >>> word_scores([["B-A", "I-A"]], [["B-A", "O"]], ["f1", "accuracy"])
    {'f1': 0.0, 'accuracy': 0.5}
    """
    from sklearn import metrics as words

    gold, found = ([label for row in rows for label in row] for rows in (golds, answers))
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "accuracy":
            scores[name] = float(words.accuracy_score(gold, found))
        elif name == "macro_f1":
            scores[name] = float(words.f1_score(gold, found, average="macro", zero_division=0.0))
        else:
            entities = getattr(_library("seqeval.metrics"), f"{name}_score")
            scores[name] = float(entities(golds, answers, zero_division=0))
    return scores


TEXT_METRICS: Mapping[str, Any] = {"rouge": rouge, "bleu": bleu, "exact_match": exact_match}
NAMES: Mapping[str, tuple[str, ...]] = {
    "rouge": ("rougeL", "rouge1", "rouge2"),
    "bleu": ("bleu",),
    "exact_match": ("exact_match",),
}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _library(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise IwloraError(
            f"the package {error.name} is not installed: pip install 'iwlora[generation]'"
        ) from None
