"""Metrics of generated texts: ROUGE, BLEU and exact match, without network access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iwlora.extras import name_missing_extra

# The names of the scores that each metric returns, the primary one first.
SCORE_NAMES: Mapping[str, tuple[str, ...]] = {
    "rouge": ("rougeL", "rouge1", "rouge2"),
    "bleu": ("bleu",),
    "exact_match": ("exact_match",),
}


@name_missing_extra()
def rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-L, in [0, 1], with stemming, by rouge-score.

    Example:
        >>> rouge(["the cats sat"], ["a cat sat"])["rouge2"]
        0.5

    Source:
        Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = list(SCORE_NAMES["rouge"])
    scorer = RougeScorer(names, use_stemmer=True)
    rows = [scorer.score(ref, text) for text, ref in zip(predictions, references, strict=True)]
    return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in names}


@name_missing_extra()
def bleu(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU of the whole corpus, in [0, 1], with sacreBLEU's default settings.

    Example:
        >>> bleu(["the cat sat on the mat"], ["the cat sat on the mat"])
        {'bleu': 1.0}

    Source:
        Post 2018 (arXiv 1804.08771).
    """
    import sacrebleu

    score = sacrebleu.corpus_bleu(list(predictions), [list(references)]).score
    return {"bleu": round(score / 100, 12)}


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Fraction of texts equal to their reference; spaces at the ends do not count.

    >>> exact_match(["42 ", "no"], ["42", "yes"])
    {'exact_match': 0.5}
    """
    pairs = list(zip(predictions, references, strict=True))
    return {"exact_match": sum(text.strip() == ref.strip() for text, ref in pairs) / len(pairs)}


TEXT_METRICS = {"rouge": rouge, "bleu": bleu, "exact_match": exact_match}
