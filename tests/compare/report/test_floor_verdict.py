"""The sentence on a score and its floors claims what the interval shows, and no more."""

from __future__ import annotations

import pytest

from iwlora.compare.report.floor_verdict import floor_verdict, is_beaten
from iwlora.results.run import FloorScore

pytestmark = pytest.mark.quick


def floor(
    name: str, margin: float | None, half: float | None = 0.02, trivial: bool = False
) -> FloorScore:
    ends = (None, None) if margin is None or half is None else (margin - half, margin + half)
    return FloorScore(
        name=name, trivial=trivial, rows=277, metrics={}, margin=margin, low=ends[0], high=ends[1]
    )


def verdict(
    words: float | None, constant: float | None, metric: str = "f1", half: float | None = 0.02
) -> str:
    floors = [floor("bag of words", words, half), floor("commonest", constant, half, trivial=True)]
    return floor_verdict(metric, floors)


def test_the_hardest_floor_that_is_beaten_is_named() -> None:
    points = "by 4.2 points (95% interval 2.2 to 6.2)"
    assert verdict(0.042, 0.2) == f"beats the bag of words {points}"
    assert verdict(0.2, 0.042) == f"beats the commonest {points}"


@pytest.mark.parametrize("margin", [-0.3, -0.01, 0.0])
def test_a_run_that_is_not_above_a_trivial_floor_learned_nothing(margin: float) -> None:
    assert verdict(0.5, margin).startswith("learned nothing: not above the commonest (")


def test_a_margin_within_its_interval_is_not_claimed() -> None:
    assert verdict(-0.1, 0.012) == (
        "is not shown to learn: above the commonest by 1.2 points (95% interval -0.8 to 3.2); "
        "277 scored rows are too few to tell"
    )
    assert verdict(0.012, 0.1) == (
        "is not shown to beat the bag of words (+1.2 points, 95% interval -0.8 to 3.2); it beats "
        "the commonest by 10.0 points (95% interval 8.0 to 12.0)"
    )
    assert "is not shown to beat the bag of words (-1.2 points" in verdict(-0.012, 0.1)
    assert "is not shown to beat the bag of words (0.0 points" in verdict(0.0, 0.1)


def test_a_run_below_a_bag_of_words_is_told_so() -> None:
    assert verdict(-0.05, 0.1) == (
        "is below the bag of words by 5.0 points (95% interval 3.0 to 7.0); it beats the commonest "
        "by 10.0 points (95% interval 8.0 to 12.0)"
    )


def test_where_lower_is_better_no_sentence_says_above_or_below() -> None:
    found = [verdict(*margins, metric="perplexity") for margins in ((1, -1), (1, 0.01), (-1, 1))]
    assert "learned nothing: not better than the commonest (" in found[0]
    assert "to learn: better than the commonest by 0.01 (95% interval" in found[1]
    assert found[2].startswith("is worse than the bag of words by 1 (95% interval 0.98 to 1.02)")


def test_errors_keep_their_unit() -> None:
    assert verdict(12.25, 20.5, "rmse", half=2.0) == (
        "beats the bag of words by 12.2 (95% interval 10.2 to 14.2)"
    )


def test_what_is_not_known_is_not_claimed() -> None:
    assert floor_verdict("f1", []) == ""
    assert verdict(None, None) == (
        "cannot be compared with the bag of words and the commonest: a score is not a number"
    )
    assert "with too few rows for an interval" in verdict(0.3, 0.3, half=None)
    assert not is_beaten(floor("bag of words", 0.3, None))
    assert verdict(None, 0.3).startswith("beats the commonest")
