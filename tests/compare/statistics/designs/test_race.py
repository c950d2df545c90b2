"""The race on planted scores: wrong decisions under the null, a planted best, broken races."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from iwlora.compare.statistics.designs import race as race_module
from iwlora.compare.statistics.designs.race import leader, pair_paths, race, simultaneous_interval
from iwlora.compare.statistics.sequential import p_difference
from iwlora.results.comparison.record import RaceRule

RULE = RaceRule(draws=[8, 16, 32, 64], error=0.05)
CHOICES, DESIGNS, INTERACTION, NOISE = 4, 4.0, 1.0, 1.5


def planted(best: float, trials: int, seed: int = 0, paired: bool = True) -> Iterator[dict]:
    """Scores of choices over draws: the draw's other components, interactions, noise.

    Unpaired scores have other components in each run.
    """
    generator = np.random.default_rng(seed)
    for _ in range(trials):
        shape = (CHOICES, RULE.draws[-1])
        designs = generator.normal(0, DESIGNS, (1, shape[1]) if paired else shape)
        scores = designs + generator.normal(0, INTERACTION, shape)
        scores = scores + generator.normal(0, NOISE, shape)
        scores[2] += best
        yield {str(choice): [*map(float, row)] for choice, row in enumerate(scores)}


def wrong_under_the_null(trials: int) -> float:
    return sum(bool(race(scores, RULE).dropped) for scores in planted(0, trials)) / trials


def found(trials: int, paired: bool = True) -> float:
    ended = [race(scores, RULE) for scores in planted(2.0, trials, 1, paired)]
    return sum(one.left == ("2",) for one in ended) / trials


def test_wrong_decisions_are_at_most_the_error_and_a_planted_best_is_found() -> None:
    assert wrong_under_the_null(2000) <= RULE.error
    assert found(60) >= 0.9


def test_an_unpaired_race_fails() -> None:
    """It would fail the test above: other components in each run hide what a choice adds."""
    assert found(30, paired=False) < 0.5


def test_a_race_without_correction_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 15 choices, some of the 105 pairs look different too often without it."""
    generator = np.random.default_rng(3)
    nulls = [
        {str(k): [*map(float, row)] for k, row in enumerate(generator.normal(0, 1, (15, 16)))}
        for _ in range(30)
    ]
    rule = RaceRule(draws=[8, 16])
    assert sum(bool(race(scores, rule).dropped) for scores in nulls) <= 2
    monkeypatch.setattr(race_module, "holm", lambda p_values: p_values)
    assert sum(bool(race(scores, rule).dropped) for scores in nulls) > 10


def test_what_is_dropped_follows_the_oracle() -> None:
    """Pair by pair with Holm by hand, look by look."""
    (scores,) = planted(2.0, 1, seed=5)
    dropped: dict[str, int] = {}
    for draws in RULE.draws:
        pairs = {}
        for one in scores:
            for other in scores:
                if one < other:
                    last = min(draws, dropped.get(one, draws), dropped.get(other, draws))
                    path = np.subtract(scores[one][:last], scores[other][:last])
                    pairs[one, other] = p_difference(path).min(), path.mean()
        adjusted = 0.0
        for rank, ((one, other), (p, mean)) in enumerate(sorted(pairs.items(), key=lambda i: i[1])):
            adjusted = max(adjusted, p * (len(pairs) - rank))
            if adjusted <= RULE.error:
                dropped.setdefault(other if mean > 0 else one, draws)
    assert {choice: why.draws for choice, why in race(scores, RULE).dropped.items()} == dropped


def test_a_race_waits_for_the_runs_before_a_look_and_failed_runs_say_nothing() -> None:
    (scores,) = planted(6.0, 1)
    short = {**scores, "1": scores["1"][:7]}
    waiting = race(short, RULE)
    assert (waiting.ended, waiting.draws, waiting.dropped) == (False, 8, {})
    failed = {**scores, "2": [None] * 64}
    assert "2" in race(failed, RULE).left
    assert leader(failed, race(failed, RULE).left, 64) != "2"
    assert pair_paths(failed, 8)["0", "2"] == []
    assert leader(scores, tuple(scores), 64) == "2"


def test_the_interval_of_a_pair_holds_for_all_pairs_and_looks() -> None:
    """No null race has an interval that misses 0 more often than promised."""
    missed = 0
    for scores in planted(0, 100, seed=9):
        path = pair_paths(scores, 64)["0", "1"]
        interval = simultaneous_interval(path, RULE, CHOICES)
        assert interval is not None
        missed += not interval[0] <= 0 <= interval[1]
    assert missed <= 2
    assert simultaneous_interval([1.0], RULE, CHOICES) is None
