"""Rank correlations of proxies with scores: oracles, and coverage under planted nulls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from iwlora.compare.statistics.designs.rank_correlations import (
    proxy_table,
    rank_correlation,
    spearman,
)

pytestmark = pytest.mark.quick
RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_that_of_scipy(ties: bool) -> None:
    for count in (3, 8, 50):
        x, y = RANDOM.normal(size=(2, count)) * 3
        if ties:
            x, y = x.round(), y.round()
        if min(len({*x}), len({*y})) > 1:
            assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


def slow_interval(x: Any, y: Any, draws: Any) -> tuple[float, float]:
    """The jackknife over draws as its definition says, with scipy's numbers."""
    from scipy.stats import t

    labels = sorted({*draws})
    n = len(labels)

    def z(kept: list[int]) -> float:
        m = len(kept)
        most = 1 - 6 / (m * (m * m - 1))
        rho = spearmanr([x[k] for k in kept], [y[k] for k in kept]).statistic
        return math.atanh(max(-most, min(most, rho)))

    every = list(range(len(x)))
    pseudo = [
        n * z(every) - (n - 1) * z([k for k in every if draws[k] != label]) for label in labels
    ]
    half = t.ppf(0.975, n - 1) * np.std(pseudo, ddof=1) / math.sqrt(n)
    return math.tanh(np.mean(pseudo) - half), math.tanh(np.mean(pseudo) + half)


def test_the_interval_is_the_jackknife_over_draws() -> None:
    draws = np.repeat(np.arange(7), [1, 2, 3, 1, 2, 2, 4])
    x, y = RANDOM.normal(size=(2, len(draws)))
    found = rank_correlation(x, x + y, draws)
    assert (found.low, found.high) == pytest.approx(slow_interval(x, x + y, draws), abs=1e-12)
    assert (found.runs, found.draws) == (15, 7)
    alone = rank_correlation(x, y)
    assert (alone.low, alone.high) == pytest.approx(slow_interval(x, y, range(15)), abs=1e-12)
    perfect = rank_correlation(x, x)
    assert perfect.rho == 1
    assert 0.9 < (perfect.high or 0) <= 1
    few = rank_correlation(x[:5], y[:5])
    assert (few.low, few.high) == (None, None)


def covered(runs_of_draw: int, by_draw: bool, null_runs: int = 60) -> float:
    """How often 0 is in the interval of two unrelated numbers, each alike within a draw."""
    random, draws = np.random.default_rng(1), np.repeat(np.arange(14), runs_of_draw)
    inside = 0
    for _ in range(null_runs):
        of_draws, of_runs = random.normal(size=(2, 14)), random.normal(size=(2, len(draws)))
        x, y = 2 * of_draws[:, draws] + of_runs
        found = rank_correlation(x, y, draws if by_draw else None)
        inside += (found.low or 0) <= 0 <= (found.high or 0)
    return inside / null_runs


def test_the_interval_of_planted_nulls_covers_and_one_over_runs_does_not() -> None:
    assert 0.89 <= covered(1, by_draw=True) <= 0.99
    assert 0.89 <= covered(4, by_draw=True) <= 0.99
    assert covered(4, by_draw=False) < 0.8, "runs of one draw taken as independent"


def test_permuted_importance_has_a_p_value_that_is_uniform_under_the_null() -> None:
    random, layers, found = np.random.default_rng(2), 6, []
    for real in (False,) * 80 + (True,):
        shares = random.dirichlet(np.ones(layers), size=24)
        importance = random.exponential(size=layers)
        scores = random.normal(size=24) + 8 * shares @ (importance if real else np.zeros(layers))
        permuted = [shares @ random.permutation(importance) for _ in range(39)]
        (row,) = proxy_table(
            {"importance": shares @ importance}, scores, permuted={"importance": permuted}
        )
        assert row.p_value is not None
        found.append(row.p_value)
    assert found.pop() <= 0.05
    assert 0.2 <= np.mean(np.array(found) <= 0.3) <= 0.4


@pytest.mark.parametrize(
    ("x", "y", "draws"),
    [([1, 2], [1, 2], None), ([1, 2, 3], [1, 2], None), ([1, 2, math.nan], [1, 2, 3], None)],
)
def test_numbers_that_say_nothing_are_refused(x: Any, y: Any, draws: Any) -> None:
    with pytest.raises(ValueError, match=r"values|at least three runs"):
        rank_correlation(x, y, draws)
