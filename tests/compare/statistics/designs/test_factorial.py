"""Effects of factors against closed forms and SciPy, and how often their intervals cover."""

from __future__ import annotations

from itertools import islice, product

import numpy as np
import pytest
from scipy import stats

from iwlora.compare.statistics.designs.factorial import (
    factor_effects,
    independent_difference,
    largest_sums,
)


def test_one_factor_is_the_pooled_t_test() -> None:
    generator = np.random.default_rng(0)
    has = generator.integers(0, 2, (30, 1))
    scores = generator.normal(0, 1, 30) + has[:, 0]
    (effect,) = factor_effects(has, [*scores])
    test = stats.ttest_ind(scores[has[:, 0] == 1], scores[has[:, 0] == 0])
    interval = test.confidence_interval(0.95)
    assert effect is not None
    assert effect.p_value == pytest.approx(test.pvalue)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))


def test_planted_effects_are_found_and_nulls_are_covered() -> None:
    """16 factors, 192 designs, an effect of 2 points: the intervals of all cover at 95%."""
    generator = np.random.default_rng(1)
    truth = np.zeros(16)
    truth[3] = 4.0
    covered, found = 0, 0
    for _ in range(100):
        has = generator.integers(0, 2, (192, 16))
        effects = factor_effects(has, [*(has @ truth + generator.normal(0, 4, 192))])
        covered += all(e.low <= t <= e.high for e, t in zip(effects, truth, strict=True))
        found += effects[3].p_value < 0.05
    assert covered >= 89
    assert found >= 95


def test_what_cannot_be_told_apart_has_no_effect() -> None:
    generator = np.random.default_rng(2)
    one = generator.integers(0, 2, 40)
    other = generator.integers(0, 2, 40)
    has = np.column_stack([one, one, other, np.ones(40)])
    effects = factor_effects(has, [*(other + generator.normal(0, 0.1, 40))])
    assert [effect is None for effect in effects] == [True, True, False, True]
    assert effects[2].mean == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="need 3"):
        factor_effects([[0], [1]], [0.0, 1.0])


def test_independent_means_are_compared_as_by_scipy() -> None:
    generator = np.random.default_rng(3)
    one, other = generator.normal(1, 1, 12), generator.normal(0, 3, 20)
    found = independent_difference([*one], [*other])
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert independent_difference([1.0], [0.0]).low is None


@pytest.mark.parametrize("sizes", [(3, 1, 4), (5, 5, 5), (2, 2, 2, 2, 2, 2), (4, 0), ()])
def test_sums_come_as_if_all_were_sorted(sizes: tuple[int, ...]) -> None:
    """The reference sorts every choice; small whole gains have many ties."""
    generator = np.random.default_rng(4)
    for spread in (2, 1000):
        gains = [generator.integers(-spread, spread + 1, size).tolist() for size in sizes]
        every = product(*(sorted(range(len(of)), key=lambda k, of=of: -of[k]) for of in gains))
        expected = sorted(
            every, key=lambda chosen: -sum(of[k] for of, k in zip(gains, chosen, strict=True))
        )
        assert [*largest_sums(gains)] == expected


def test_the_largest_of_many_sums_are_found_without_making_the_others() -> None:
    """Eight groups of 15 sets: 2.6 billion sums."""
    gains = np.random.default_rng(5).normal(size=(8, 15))
    first, *others = islice(largest_sums(gains.tolist()), 1000)
    assert first == tuple(gains.argmax(1))
    sums = [sum(gains[group, item] for group, item in enumerate(chosen)) for chosen in others]
    assert sums == sorted(sums, reverse=True)
