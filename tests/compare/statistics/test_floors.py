"""The mean margin of an arm over its seeds."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t

from iwlora.compare.statistics.floors import mean_floors
from iwlora.results.run import FloorScore, RunResult

pytestmark = pytest.mark.quick


def run(seed: int, margin: float | None, half: float | None = 0.03, name: str = "a") -> RunResult:
    floor = FloorScore(
        name=name,
        trivial=True,
        rows=100 - seed,
        metrics={"f1": 0.5 + seed / 10},
        margin=margin,
        low=None if half is None or margin is None else margin - half,
        high=None if half is None or margin is None else margin + half,
    )
    return RunResult.from_score("lora", "task", seed, "f1", 0.7, model="m", floors=[floor])


def test_the_interval_covers_seeds_and_rows() -> None:
    margins = [0.1, 0.2, 0.15]
    (mean,) = mean_floors([run(seed, margin) for seed, margin in enumerate(margins)])
    over_seeds = t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    assert mean.margin == pytest.approx(0.15)
    assert mean.low == pytest.approx(0.15 - math.hypot(0.03, over_seeds))
    assert mean.high == pytest.approx(0.15 + math.hypot(0.03, over_seeds))
    assert mean.metrics == {"f1": pytest.approx(0.6)}
    assert mean.rows == 98


def test_one_run_keeps_its_floors() -> None:
    assert mean_floors([run(0, 0.125)])[0].low == pytest.approx(0.095)
    assert mean_floors([]) == []


def test_what_one_seed_does_not_know_the_mean_does_not_know() -> None:
    assert mean_floors([run(0, 0.1), run(1, None)])[0].margin is None
    (mean,) = mean_floors([run(0, 0.1), run(1, 0.1, half=None)])
    assert (mean.margin, mean.low, mean.high) == (0.1, None, None)
    assert mean_floors([run(0, 0.1), run(1, 0.1, name="b")]) == []
