"""Metrics of generated texts: ROUGE, BLEU, chrF and exact match, without network access.

References are lists, one for each prediction, of the texts that are accepted. How texts become
tokens depends on the script of the references, unless the task says it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import chain, zip_longest
from typing import Any

from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.tasks.metrics.scripts import count_letters, unicode_tokens

References = Sequence[Sequence[str]]

# The names of the scores that each metric returns, the primary one first.
SCORE_NAMES: Mapping[str, tuple[str, ...]] = {
    "rouge": ("rougeL", "rouge1", "rouge2"),
    "bleu": ("bleu", "chrf"),
    "exact_match": ("exact_match",),
}
TOKENIZERS: Mapping[str, tuple[str, ...]] = {
    "rouge": ("rouge-score", "unicode"),
    "bleu": ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"),
    "exact_match": (),
}
"""What a task may set as the tokenizer of a metric."""

_MAX_ORDER = 4  # of BLEU's n-grams


def rouge_tokenizer(references: References) -> str:
    """rouge-score's own tokenizer, which deletes all letters but a to z; or ``unicode`` words.

    The latter where more than 1% of the references' letters would be deleted.

    >>> rouge_tokenizer([["the cat"]]), rouge_tokenizer([["die Kätzchen"]])
    ('rouge-score', 'unicode')
    """
    counts = count_letters(chain.from_iterable(references))
    return "rouge-score" if counts.ascii >= 0.99 * counts.letters else "unicode"


def bleu_tokenizer(references: References) -> str:
    """sacreBLEU's tokenizer for the script of the references.

    ``char`` where most letters belong to Japanese or to another script without spaces, ``zh`` where
    5% or more are Chinese, else ``13a``.

    >>> bleu_tokenizer([["the cat"]]), bleu_tokenizer([["\u732b\u5728\u57ab\u5b50\u4e0a"]])
    ('13a', 'zh')
    """
    counts = count_letters(chain.from_iterable(references))
    # Japanese is written with Chinese characters too, but hardly without kana.
    japanese = counts.kana + counts.chinese if 10 * counts.kana > counts.chinese else 0
    if 2 * max(japanese, counts.other_unspaced) > counts.letters:
        return "char"
    return "zh" if counts.letters and counts.chinese >= 0.05 * counts.letters else "13a"


def rouge(
    predictions: Sequence[str],
    references: References,
    tokenizer: str | None = None,
    names: Sequence[str] = SCORE_NAMES["rouge"],
) -> dict[str, float]:
    """Mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-L, or of some, in [0, 1], by rouge-score.

    Of several references the best one counts, for each of the three.

    Example:
        >>> rouge(["the cats sat"], [["a cat sat"]])["rouge2"]
        0.5

    Source:
        Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """
    scorer = _rouge_scorer(references, tokenizer, names)
    rows = [
        scorer.score_multi(list(accepted), text)
        for text, accepted in zip(predictions, references, strict=True)
    ]
    return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in names}


def bleu(
    predictions: Sequence[str],
    references: References,
    tokenizer: str | None = None,
    names: Sequence[str] = SCORE_NAMES["bleu"],
) -> dict[str, float]:
    """BLEU and chrF of the whole corpus, or one of the two, in [0, 1], by sacreBLEU.

    Where no reference has four tokens, BLEU counts the n-grams that there are ("eff:yes" in its
    signature): otherwise it would be 0 for equal texts too.

    Example:
        >>> bleu(["the cat sat on the mat"], [["the cat sat on the mat"]])
        {'bleu': 1.0, 'chrf': 1.0}

    Source:
        Post 2018 (arXiv 1804.08771); Popović 2015, "chrF".
    """
    scorers = _bleu_scorers(references, tokenizer, names)
    return {
        name: round(scorer.corpus_score(list(predictions), None).score / 100, 12)
        for name, scorer in scorers.items()
    }


def exact_match(
    predictions: Sequence[str],
    references: References,
    tokenizer: str | None = None,
    names: Sequence[str] = SCORE_NAMES["exact_match"],
) -> dict[str, float]:
    """Fraction of texts equal to one of their references; spaces at the ends do not count.

    Two ways to write a letter in Unicode are equal: many tokenizers write one of them only.

    >>> exact_match(["42 ", "no"], [["42"], ["yes", "yeah"]])
    {'exact_match': 0.5}
    """
    pairs = list(zip(predictions, references, strict=True))
    equal = [_canonical(text) in map(_canonical, accepted) for text, accepted in pairs]
    return {"exact_match": sum(equal) / len(equal)}


def _canonical(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


TEXT_METRICS: Mapping[str, Callable[..., dict[str, float]]] = {
    "rouge": rouge,
    "bleu": bleu,
    "exact_match": exact_match,
}


def signatures(metric: str, references: References, tokenizer: str | None = None) -> dict[str, str]:
    """{score: how it is computed} for a metric: sacreBLEU's signatures, and the like for ROUGE.

    Raises:
        IwloraError: The tokenizer needs a library that is not installed.

    Example:
        >>> signatures("rouge", [["the cat"]])
        {'rouge': 'tok:rouge-score|stem:yes|version:0.1.2'}
    """
    if metric == "bleu":
        scorers = _bleu_scorers(references, tokenizer)
        return {name: str(scorer.get_signature()) for name, scorer in scorers.items()}
    if metric == "rouge":
        _rouge_scorer(references, tokenizer)
        name = tokenizer or rouge_tokenizer(references)
        stem = "yes" if name == "rouge-score" else "no"
        return {"rouge": f"tok:{name}|stem:{stem}|version:{version('rouge-score')}"}
    return {}


@name_missing_extra()
def _rouge_scorer(
    references: References,
    tokenizer: str | None,
    names: Sequence[str] = SCORE_NAMES["rouge"],
) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class UnicodeTokenizer(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return unicode_tokens(text)

    if (tokenizer or rouge_tokenizer(references)) == "unicode":
        return RougeScorer(list(names), tokenizer=UnicodeTokenizer())
    return RougeScorer(list(names), use_stemmer=True)


@name_missing_extra()
def _bleu_scorers(
    references: References, tokenizer: str | None, names: Sequence[str] = SCORE_NAMES["bleu"]
) -> dict[str, Any]:
    """The scorers of BLEU and chrF, or of one of them, that know their references."""
    import sacrebleu

    # One list for the first references of all rows, one for the second ones, and so on.
    streams = [list(stream) for stream in zip_longest(*references)]
    name = tokenizer or bleu_tokenizer(references)
    try:
        tokenize = sacrebleu.BLEU(tokenize=name).tokenizer
    except RuntimeError as error:  # of ja-mecab and ko-mecab
        raise IwloraError(
            f"task.kind.tokenizer={name} needs a library that is not installed: "
            f"pip install 'sacrebleu[{name[:2]}]'"
        ) from error
    lengths = (len(tokenize(text).split()) for text in chain.from_iterable(references))
    short = max(lengths, default=0) < _MAX_ORDER
    make: dict[str, Callable[[], Any]] = {
        "bleu": lambda: sacrebleu.BLEU(tokenize=name, effective_order=short, references=streams),
        "chrf": lambda: sacrebleu.CHRF(references=streams),
    }
    return {score: make[score]() for score in names}
