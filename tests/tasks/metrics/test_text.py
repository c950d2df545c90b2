"""ROUGE and BLEU against independent implementations."""

from __future__ import annotations

import pytest
from torchmetrics.functional.text import rouge_score, sacre_bleu_score

from iwlora.errors import IwloraError
from iwlora.tasks.metrics.text import bleu, rouge
from sample_texts import texts

pytestmark = pytest.mark.quick


def test_rouge() -> None:
    predictions, references = texts(1, 40), texts(2, 40)
    scores = rouge(predictions, [[text] for text in references], "rouge-score")
    keys = ("rouge1", "rouge2", "rougeL")
    expected = rouge_score(predictions, references, rouge_keys=keys, use_stemmer=True)
    for name, value in scores.items():
        assert 0 < value < 1
        assert value == pytest.approx(float(expected[f"{name}_fmeasure"]), abs=1e-6)


def test_bleu() -> None:
    references = texts(3, 40, least=8, most=20)
    predictions = [text.replace("cat", "dog") for text in references]
    value = bleu(predictions, [[text] for text in references])["bleu"]
    expected = float(sacre_bleu_score(predictions, [[text] for text in references]))
    assert 0.2 < value < 1
    assert value == pytest.approx(expected, abs=1e-5)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(IwloraError, match=r"pip install 'iwlora\[generation\]'"):
        bleu(["a"], [["a"]])
