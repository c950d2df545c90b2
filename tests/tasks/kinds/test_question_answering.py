"""Answers located in their passages."""

from __future__ import annotations

import copy

import pytest

from iwlora.tasks.kinds.question_answering import QuestionAnswering

pytestmark = pytest.mark.quick
TEXTS = ("Where?", "They were in Normandy, Normandy.")


def test_the_start_of_an_answer_is_found_and_the_given_label_stays_as_it_is() -> None:
    kind = QuestionAnswering()
    label = kind.parse_label(["Normandy", "in Normandy"])
    before = copy.deepcopy(label)
    assert kind.complete_label(TEXTS, label) == {
        "text": ["Normandy", "in Normandy"],
        "answer_start": [13, 10],
    }
    assert label == before


def test_a_start_that_is_given_is_kept() -> None:
    label = {"text": ["Normandy"], "answer_start": [23]}
    assert QuestionAnswering().complete_label(TEXTS, label) == label


@pytest.mark.parametrize(
    ("text", "start", "position"), [("Paris", -1, 0), ("Normandy", 3, 3), ("Paris", 0, 0)]
)
def test_an_answer_that_is_not_in_the_passage(text: str, start: int, position: int) -> None:
    label = {"text": [text], "answer_start": [start]}
    with pytest.raises(ValueError, match=f"'{text}' is not in the passage at {position}"):
        QuestionAnswering().complete_label(TEXTS, label)
