"""ROUGE, BLEU and chrF in other scripts: tokenizers, several references, signatures."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import sacrebleu

from iwlora.errors import IwloraError
from iwlora.tasks.metrics.text import (
    bleu,
    bleu_tokenizer,
    exact_match,
    rouge,
    rouge_tokenizer,
    signatures,
)

pytestmark = pytest.mark.quick

# {language: (a text, another text with some of its words)}
TEXTS = {
    "Chinese": ("我非常喜欢这只小猫,它很可爱。", "我非常喜欢这只大狗。"),
    "Arabic": ("أنا أحب القطط كثيرا، وهي جميلة جدا.", "أنا أحب القطط كثيرا، وهي قبيحة."),
    "Japanese": ("私はこの猫がとても好きです。", "私はこの犬がとても嫌いだ。"),
    "Thai": ("ฉันชอบแมวตัวนี้มาก", "ฉันชอบแมวตัวนั้น"),
    "Hindi": ("मुझे यह बिल्ली बहुत पसंद है।", "मुझे यह बिल्ली बहुत नापसंद थी।"),
    "Russian": ("Я очень люблю эту маленькую кошку.", "Я очень люблю эту собаку."),
    "Greek": ("Μου αρέσει πολύ αυτή η γάτα.", "Μου αρέσει πολύ αυτή αλλά όχι."),
    "Hebrew": ("אני מאוד אוהב את החתול הזה.", "אני מאוד אוהב את הכלב."),
    "Korean": ("나는 이 작은 고양이를 아주 좋아합니다.", "나는 이 작은 고양이를 정말 싫어한다."),
    "Burmese": ("ကျွန်တော်ကြောင်ကြိုက်တယ်", "ကျွန်တော်ကြောင်မကြိုက်ဘူး"),
    "German": ("Ich mag dieses Kätzchen sehr.", "Ich mag dieses Kätzchen sehr wenig, nicht."),
    "English": ("I like this little cat very much.", "I like this little dog."),
    "yes": ("是", "是的"),
}


@pytest.mark.parametrize("language", [name for name in TEXTS if name != "yes"])
def test_identical_texts_score_1_and_others_less(language: str) -> None:
    text, other = TEXTS[language]
    assert bleu([text], [[text]]) == {"bleu": 1.0, "chrf": 1.0}
    assert rouge([text], [[text]]) == {"rougeL": 1.0, "rouge1": 1.0, "rouge2": 1.0}
    for scores in (bleu([other], [[text]]), rouge([other], [[text]])):
        assert all(0 < value < 1 for value in scores.values()), scores


def test_identical_short_texts_have_a_bleu_of_1() -> None:
    """They have no 4-grams, for which sacreBLEU's corpus score is 0."""
    for text in ("yes", "no sir", "是", "نعم"):
        assert bleu([text], [[text]]) == {"bleu": 1.0, "chrf": 1.0}
    assert "|eff:yes|" in signatures("bleu", [["yes"]])["bleu"]
    assert bleu(["no"], [["yes"]])["bleu"] == 0


def test_the_tokenizer_follows_the_script_of_all_references() -> None:
    chosen = {name: bleu_tokenizer([[text]]) for name, (text, _) in TEXTS.items()}
    assert {name for name, tokenizer in chosen.items() if tokenizer == "zh"} == {"Chinese", "yes"}
    assert {name for name, tokenizer in chosen.items() if tokenizer == "char"} == {
        *("Japanese", "Thai", "Burmese")
    }
    english = [["the cat sat on the mat, " * 20], ["a café"]]
    assert (bleu_tokenizer(english), rouge_tokenizer(english)) == ("13a", "rouge-score")
    assert rouge_tokenizer([["Ça va très bien à la fête"]]) == "unicode"
    assert rouge_tokenizer([["42"]]) == "rouge-score"


def test_english_has_the_numbers_of_the_libraries() -> None:
    predictions, references = ["a cat sat on the old mat"], ["the cat sat on the mat"]
    expected = sacrebleu.corpus_bleu(predictions, [references]).score / 100
    chrf = sacrebleu.corpus_chrf(predictions, [references]).score / 100
    assert bleu(predictions, [[text] for text in references]) == pytest.approx(
        {"bleu": expected, "chrf": chrf}
    )


def test_of_several_references_each_row_may_have_its_own_number() -> None:
    predictions = ["the cat sat on it", "b c d e f"]
    references = [["a dog", "the cat sat on it"], ["b c d e f"]]
    assert bleu(predictions, references)["bleu"] == 1.0
    assert rouge(predictions, references)["rougeL"] == 1.0
    streams: Any = [["a dog", "b c d e f"], ["the cat sat on it", None]]
    expected = sacrebleu.corpus_bleu(["the cat sat", "b c d x f"], streams).score / 100
    value = bleu(["the cat sat", "b c d x f"], references)["bleu"]
    assert value == pytest.approx(expected)
    assert 0 < value < 1


def test_signatures_are_those_of_the_libraries() -> None:
    stored = signatures("bleu", [["我喜欢这只猫"]])
    scorer = sacrebleu.BLEU(tokenize="zh")
    scorer.corpus_score(["我"], [["我喜欢这只猫"]])
    assert stored["bleu"] == str(scorer.get_signature())
    assert stored["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert signatures("rouge", [["猫"]])["rouge"].startswith("tok:unicode|stem:no|version:")
    assert signatures("exact_match", [["猫"]]) == {}
    assert "tok:intl|" in signatures("bleu", [["猫"]], "intl")["bleu"]


def test_a_tokenizer_without_its_library_says_what_to_install() -> None:
    with pytest.raises(IwloraError, match=r"tokenizer=ja-mecab needs .* 'sacrebleu\[ja\]'"):
        signatures("bleu", [["猫"]], "ja-mecab")


def test_two_ways_to_write_a_letter_are_equal() -> None:
    composed, apart = (unicodedata.normalize(form, "Ελλάδα é") for form in ("NFC", "NFD"))
    assert composed != apart
    assert exact_match([composed, "e"], [[apart], [apart]]) == {"exact_match": 0.5}
