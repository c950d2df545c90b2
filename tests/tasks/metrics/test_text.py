"""SQuAD's scores, ROUGE, BLEU, entity F1, correlations: against independent implementations."""

from __future__ import annotations

import random

import numpy as np
import pytest
from torchmetrics.functional.text import rouge_score, sacre_bleu_score, squad

from iwlora.errors import IwloraError
from iwlora.tasks.metrics.regression import pearson, spearman
from iwlora.tasks.metrics.squad import squad_scores
from iwlora.tasks.metrics.text import bleu, rouge
from iwlora.tasks.metrics.token_labels import token_label_scores

WORDS = "The a cat's cat, an THE dog sat sits sitting on mat. 12% of Ünïcode runs running".split()


def texts(seed: int, count: int, least: int = 1, most: int = 12) -> list[str]:
    draw = random.Random(seed)
    many = (draw.choices(WORDS, k=draw.randint(least, most)) for _ in range(count))
    return [" ".join([*words, draw.choice(WORDS[6:])]) for words in many]  # not of articles alone


def test_squad_scores() -> None:
    answers, golds = texts(0, 60, most=4), [texts(k, 1 + k % 3, most=4) for k in range(60)]
    found = squad_scores(answers, golds)
    preds = [{"prediction_text": text, "id": str(k)} for k, text in enumerate(answers)]
    target = [
        {"answers": {"text": gold, "answer_start": [0] * len(gold)}, "id": str(k)}
        for k, gold in enumerate(golds)
    ]
    expected = squad(preds, target)
    assert 0 < found["exact_match"] < found["f1"] < 1
    assert found["f1"] == pytest.approx(float(expected["f1"]) / 100, abs=1e-6)
    assert found["exact_match"] == pytest.approx(float(expected["exact_match"]) / 100, abs=1e-6)


def test_squad_scores_without_an_answer() -> None:
    found = squad_scores(["", "Paris", "the", "Rome"], [[], [], ["an", "x"], ["in Rome"]])
    assert found["exact_match"] == 1 / 4  # "the" and "an" are articles: "an" does not count as gold
    assert found["f1"] == pytest.approx((1 + 0 + 0 + 2 / 3) / 4)
    assert found["f1_unanswerable"] == 0.5
    assert found["f1_answerable"] == pytest.approx(1 / 3)


def test_rouge() -> None:
    found, gold = texts(1, 40), texts(2, 40)
    scores = rouge(found, gold)
    theirs = rouge_score(found, gold, rouge_keys=("rouge1", "rouge2", "rougeL"), use_stemmer=True)
    for name, value in scores.items():
        assert 0 < value < 1
        assert value == pytest.approx(float(theirs[f"{name}_fmeasure"]), abs=1e-6)


def test_bleu() -> None:
    gold = texts(3, 40, least=8, most=20)
    found = [text.replace("cat", "dog") for text in gold]
    value = bleu(found, gold)["bleu"]
    theirs = float(sacre_bleu_score(found, [[text] for text in gold]))
    assert 0.2 < value < 1
    assert value == pytest.approx(theirs, abs=1e-5)


def spans(labels: list[str]) -> set[tuple[str, int, int]]:
    """Entities of B- and I- labels, the slow way: an I- of another type begins one too."""
    found: set[tuple[str, int, int]] = set()
    for begin in range(len(labels)):
        for end in range(begin + 1, len(labels) + 1):
            part = [label.partition("-") for label in labels[begin:end]]
            kind = part[0][2]
            inside = all(p[0] == "I" and p[2] == kind for p in part[1:])
            before = labels[begin - 1] if begin else "O"
            starts = part[0][0] == "B" or (part[0][0] == "I" and before[2:] != kind)
            after = labels[end] if end < len(labels) else "O"
            if kind and inside and starts and after != f"I-{kind}":
                found.add((kind, begin, end))
    return found


def test_entities() -> None:
    draw = random.Random(0)
    names = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    gold, found = ([[draw.choice(names) for _ in range(9)] for _ in range(40)] for _ in range(2))
    scores = token_label_scores(gold, found, ("f1", "precision", "recall", "accuracy"))
    right = sum(len(spans(a) & spans(b)) for a, b in zip(gold, found, strict=True))
    ours, theirs = (sum(len(spans(row)) for row in rows) for rows in (found, gold))
    assert scores["precision"] == pytest.approx(right / ours)
    assert scores["recall"] == pytest.approx(right / theirs)
    assert scores["f1"] == pytest.approx(2 * right / (ours + theirs))
    pairs = [(a, b) for row, other in zip(gold, found, strict=True) for a, b in zip(row, other)]  # noqa: B905
    assert scores["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_correlations() -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 6, 50).astype(float)
    y = x + draw.normal(size=50)
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranks = [np.array([(v > z).sum() + ((v == z).sum() + 1) / 2 for v in z]) for z in (x, y)]
    assert spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert pearson(x, np.ones(50)) == spearman(np.ones(50), y) == 0.0


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(IwloraError, match=r"pip install 'iwlora\[generation\]'"):
        bleu(["a"], ["a"])
