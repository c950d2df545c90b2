"""Verdicts claim what the numbers show and no more, in words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iwlora.compare.report.verdict import (
    describe_difference,
    describe_more_seeds,
    more_seeds,
    verdict_on_task,
)
from iwlora.compare.statistics.paired_tests import (
    MIN_SEEDS,
    PairedDifference,
    adjust,
    paired_difference,
)

pytestmark = pytest.mark.quick

NOISE = [0.81, 0.79, 0.80, 0.82, 0.78, 0.80]


def pair_of(
    scores: Sequence[float], baseline: Sequence[float], metric: str = "accuracy"
) -> PairedDifference:
    pair = paired_difference(
        metric, "new", dict(enumerate(scores)), "lora", dict(enumerate(baseline))
    )
    assert pair is not None
    return pair


@pytest.mark.parametrize("n", range(1, MIN_SEEDS))
def test_too_few_seeds_have_no_winner_however_large_the_gap(n: int) -> None:
    pair = pair_of([0.9 + 0.001 * i for i in range(n)], [0.5] * n)
    seeds = "1 seed" if n == 1 else f"{n} seeds"
    reason = f"with {seeds} no test can reach p < 0.05 (the smallest possible p is {2 / 2**n:.2g})"
    assert describe_difference(pair).startswith(f"new: no verdict yet, {reason}; at least 6 seeds")
    sentence = verdict_on_task("lora", [pair])
    assert sentence == f"No verdict yet: {reason}; at least 6 seeds are needed."


def test_a_null_result_has_its_interval() -> None:
    text = verdict_on_task("lora", [pair_of(NOISE, [0.80] * 6)])
    assert "new: no difference found (+0.00 points [-1.48, +1.48], p = 1.000, 6 seeds)" in text
    assert text.startswith("No difference from lora was found for new. ")
    assert "Holm" not in text
    two = [pair_of([*NOISE, 0.8, 0.8], [0.8] * 8) for _ in range(2)]
    assert "; p-values corrected by Holm for 2 comparisons." in verdict_on_task("lora", adjust(two))


def test_a_winner_has_its_numbers_and_tiny_p_values_are_bounded() -> None:
    rising = [0.60 + 0.001 * i for i in range(12)]
    text = verdict_on_task("lora", [pair_of(rising, [0.5] * 12)])
    assert "new: higher (+10.55 points [" in text
    assert "p < 0.001, 12 seeds)" in text
    assert text.startswith("Compared with lora by accuracy, paired by seed, with 95% intervals: ")


def test_an_undecided_arm_says_how_many_more_seeds_it_needs() -> None:
    noisy = pair_of([0.6, 0.5, 0.7, 0.4, 0.6, 0.5, 0.7, 0.6], [0.5, 0.6] * 4)
    total = noisy.seeds_needed
    assert total is not None
    assert more_seeds(noisy) == f"about {total - 8}"
    assert more_seeds(pair_of([0.6], [0.5])) == "at least 5"
    assert describe_more_seeds([noisy]) == (
        "More seeds needed for 80% power to detect a difference as large as the observed one: "
        f"about {total - 8} for new."
    )
    decided = pair_of([0.9, 0.91, 0.92, 0.9, 0.93, 0.9], [0.5] * 6)
    assert more_seeds(decided) == ""
    assert describe_more_seeds([decided]) == ""


def test_points_are_for_scores_and_not_for_losses() -> None:
    losses = [0.4 + 0.001 * seed for seed in range(6)]
    lower = describe_difference(pair_of(losses, [0.5] * 6, metric="loss"))
    assert "lower (-0.0975 [" in lower


def test_equal_scores_ask_for_no_more_seeds() -> None:
    for n in (2, 6):
        pair = pair_of([0.5] * n, [0.5] * n)
        assert more_seeds(pair) == ""
        assert describe_difference(pair) == f"new: exactly the same score with {n} seeds"
