"""Which draws a race still needs, whatever the order in which its runs end."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.execute.scheduling.racing import Racing
from iwlora.results.comparison.record import RaceRule
from iwlora.results.run import Run, RunResult

RULE = RaceRule(draws=[8, 16, 32])
SEEDS = [*range(100, 132)]
CHOICES = ["a", "b", "c"]


def run_of(label: str, seed: int) -> Run | None:
    """Choice c is better by 4 points; one run of b fails."""
    if (label, seed) == ("b", 103):
        return None
    draw = np.random.default_rng(seed).normal(0, 0.04)
    own = np.random.default_rng([seed, ord(label)]).normal(0, 0.015)
    result = RunResult.from_score(
        method="lora",
        model="m",
        task="t",
        seed=seed,
        metric="accuracy",
        score=0.7 + draw + own + 0.04 * (label == "c"),
    )
    return Run(Path(), result)


@pytest.mark.parametrize("order", range(3))
def test_what_runs_and_what_is_dropped_does_not_depend_on_the_order_of_ends(order: int) -> None:
    stream, race = random.Random(order), Racing(RULE, CHOICES, SEEDS)
    waiting = [(label, seed) for seed in SEEDS for label in CHOICES]
    ended, news, running = set(), [], []
    while True:
        free = [each for each in waiting if race.needs(*each) and race.may_begin(each[1])]
        running += free
        waiting = [each for each in waiting if each not in free]
        if not running:
            break
        run = running.pop(stream.randrange(len(running)))
        ended.add(run)
        news += race.ended(*run, run_of(*run))
    draws = {label: sum(each[0] == label for each in ended) for label in CHOICES}
    assert draws == {"a": 8, "b": 16, "c": 16}
    assert [line.split(":")[0] for line in news] == [
        "a is dropped after 8 draws",
        "b is dropped after 16 draws",
    ]
    assert not any(race.needs(label, SEEDS[-1]) for label in CHOICES)
