"""SQuAD's scores against an independent implementation."""

from __future__ import annotations

import pytest
from torchmetrics.functional.text import squad

from iwlora.tasks.metrics.squad import squad_scores
from sample_texts import texts

pytestmark = pytest.mark.quick


def test_squad_scores() -> None:
    answers = texts(0, 60, most=4)
    references = [texts(k, 1 + k % 3, most=4) for k in range(60)]
    scores = squad_scores(answers, references)
    preds = [{"prediction_text": text, "id": str(k)} for k, text in enumerate(answers)]
    target = [
        {"answers": {"text": accepted, "answer_start": [0] * len(accepted)}, "id": str(k)}
        for k, accepted in enumerate(references)
    ]
    expected = squad(preds, target)
    assert 0 < scores["exact_match"] < scores["f1"] < 1
    assert scores["f1"] == pytest.approx(float(expected["f1"]) / 100, abs=1e-6)
    assert scores["exact_match"] == pytest.approx(float(expected["exact_match"]) / 100, abs=1e-6)


def test_squad_scores_without_an_answer() -> None:
    scores = squad_scores(["", "Paris", "the", "Rome"], [[], [], ["an", "x"], ["in Rome"]])
    # "the" and "an" are articles, so the reference "an" does not count.
    assert scores["exact_match"] == 1 / 4
    assert scores["f1"] == pytest.approx((1 + 0 + 0 + 2 / 3) / 4)
    assert scores["f1_unanswerable"] == 0.5
    assert scores["f1_answerable"] == pytest.approx(1 / 3)
