"""Answers in other scripts are scored as the official script of MLQA scores them."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter

import pytest

from iwlora.tasks.metrics.squad import normalization_for, squad_scores

pytestmark = pytest.mark.quick

PUNCTUATION = {
    chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P")
} | set(string.punctuation)
CHINESE = re.compile("[\u4e00-\u9fa5]")


def mlqa_segments(text: str) -> list[str]:
    """``mixed_segmentation`` of mlqa_evaluation_v1.py."""
    segments, pending = [], ""
    for character in text:
        if CHINESE.search(character) or character in PUNCTUATION:
            segments += pending.split()
            pending = ""
            segments.append(character)
        else:
            pending += character
    return segments + pending.split()


def mlqa_normalized(text: str, language: str) -> list[str]:
    """``normalize_answer`` of mlqa_evaluation_v1.py."""
    text = "".join(character for character in text.lower() if character not in PUNCTUATION)
    if language == "ar":
        text = re.sub(r"\sال^|ال", " ", text)
    return mlqa_segments(text) if language == "zh" else text.split()


def mlqa_f1(prediction: str, reference: str, language: str) -> float:
    one, two = (mlqa_normalized(text, language) for text in (prediction, reference))
    common = sum((Counter(one) & Counter(two)).values())
    return 2 * common / (len(one) + len(two)) if common else 0.0


PAIRS = {
    "zh": [
        *(("北京大学", "北京大学。"), ("在1998年", "《1998年》")),
        *(("上海", "北京"), ("A 计划", "A计划")),
    ],
    "ar": [
        *(("القاهرة، مصر", "القاهرة"), ("في العالم", "العالم العربي")),
        *(("العالم العربي", "العالم العربي؟"), ("نعم", "لا")),
    ],
    "hi": [("दिल्ली।", "दिल्ली"), ("नई दिल्ली शहर", "दिल्ली शहर"), ("हाँ", "नहीं")],
    "ru": [("«Москва»", "Москва"), ("город Москва", "Москва"), ("да", "нет")],
}


@pytest.mark.parametrize("language", PAIRS)
def test_other_scripts_are_scored_as_in_mlqa(language: str) -> None:
    predictions, answers = zip(*PAIRS[language], strict=True)
    scores = squad_scores(predictions, [[answer] for answer in answers])
    expected = [mlqa_f1(one, two, language) for one, two in PAIRS[language]]
    assert scores["f1"] == pytest.approx(sum(expected) / len(expected))
    normalized = [[mlqa_normalized(text, language) for text in pair] for pair in PAIRS[language]]
    equal = [one == two for one, two in normalized]
    assert scores["exact_match"] == sum(equal) / len(equal)
    assert 0 < scores["exact_match"] < scores["f1"] < 1


IDENTICAL_AND_PARTIAL = {
    "ja": ("東京タワー", "東京都"),
    "th": ("กรุงเทพมหานคร", "กรุงเทพ"),
    "el": ("η Αθήνα", "Αθήνα"),
    "he": ("ירושלים העתיקה", "ירושלים"),
    "ko": ("서울 특별시", "서울"),
    "zh": ("北京大学", "北京"),
}


@pytest.mark.parametrize("language", IDENTICAL_AND_PARTIAL)
def test_identical_answers_are_right_and_others_partly(language: str) -> None:
    answer, part = IDENTICAL_AND_PARTIAL[language]
    assert squad_scores([answer + "."], [[answer]]) == {"f1": 1.0, "exact_match": 1.0}
    scores = squad_scores([part], [[answer]])
    assert 0 < scores["f1"] < 1
    assert scores["exact_match"] == 0


def test_latin_letters_and_numbers_keep_the_normalization_of_squad() -> None:
    assert normalization_for([["the cat"], ["Zürich"], []]) == "squad"
    assert normalization_for([["42"], ["1998"]]) == normalization_for([]) == "squad"
    # SQuAD's script removes no punctuation besides that of ASCII, and English articles only.
    assert squad_scores(["«Paris»"], [["Paris"]])["exact_match"] == 0
    assert squad_scores(["the Paris"], [["Paris"]])["exact_match"] == 1
