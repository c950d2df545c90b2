"""First sentences as long as the targets."""

from __future__ import annotations

import pytest

from iwlora.tasks.floors.extracts import first_sentences, median_words

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("source", "words", "expected"),
    [
        ("One two. Three four. Five.", 1, "One two."),
        ("One two. Three four. Five.", 3, "One two. Three four."),
        ("One two. Three.", 99, "One two. Three."),
        ("A title\nThe text follows.", 2, "A title"),
        ("今天下雨。我在家。", 3, "今天下雨。"),
        ("no end at all", 2, "no end at all"),
        ("", 2, ""),
    ],
)
def test_whole_sentences_until_there_are_enough_words(
    source: str, words: int, expected: str
) -> None:
    assert first_sentences(source, words) == expected


def test_the_median_number_of_words() -> None:
    assert median_words(["a", "a b c", "a b c d e"]) == 3
    assert median_words([""]) == 1
