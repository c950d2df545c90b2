"""Statistics against scipy, against hand calculation, and against simulated truths."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp, ttest_ind

from iwlora.compare.statistics.paired_tests import (
    MIN_SEEDS,
    PairedDifference,
    adjust,
    holm,
    min_seeds,
    paired_difference,
    power,
    seeds_needed,
    sign_flip_p,
    summarize,
)

scores = st.floats(-1, 1).map(lambda value: round(value, 3))


def pair_of(scores: list[float], baseline: list[float]) -> PairedDifference:
    pair = paired_difference(
        "accuracy", "new", dict(enumerate(scores)), "lora", dict(enumerate(baseline))
    )
    assert pair is not None
    return pair


@given(st.lists(scores, min_size=2, max_size=30).filter(lambda v: len(set(v)) > 1))
def test_summaries_agree_with_numpy_and_scipy(values: list[float]) -> None:
    summary = summarize(values)
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert summary.sd is not None
    assert summary.low is not None
    assert summary.high is not None
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert (summary.low, summary.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.quick
def test_one_value_has_no_spread_and_none_is_refused() -> None:
    assert summarize([0.5]).sd is None
    assert summarize([0.5]).low is None
    with pytest.raises(ValueError, match="no values"):
        summarize([])
    with pytest.raises(ValueError, match="no paired"):
        sign_flip_p([])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.3], 1.0),
        ([0.1, 0.2], 0.5),
        ([0.1, 0.2, -0.3], 1.0),  # the sum is 0 but for rounding
        ([0.3, 0.3, -0.1], 4 / 8),  # |±.3 ±.3 ±.1| reaches .5 for two sums of each sign
        ([0.0, 0.0, 0.0, 0.0], 1.0),
        ([0.01] * 5, 0.0625),
        ([-0.01] * 6, 0.03125),
    ],
)
def test_sign_flip_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(differences) == p


@settings(max_examples=50, deadline=None)
@given(st.lists(scores, min_size=1, max_size=9))
def test_sign_flip_agrees_with_enumeration_in_integers(values: list[float]) -> None:
    whole = [round(1000 * value) for value in values]
    signs = list(itertools.product((1, -1), repeat=len(whole)))
    sums = [abs(sum(s * w for s, w in zip(sign, whole, strict=True))) for sign in signs]
    assert sign_flip_p(values) == sum(s >= abs(sum(whole)) for s in sums) / len(signs)


def test_beyond_enumeration_it_is_repeatable_and_close_to_the_t_test() -> None:
    d = list(np.random.default_rng(0).normal(0.45, 1.0, 24))
    assert sign_flip_p(d) == sign_flip_p(d)
    assert sign_flip_p(d) == pytest.approx(ttest_1samp(d, 0.0).pvalue, abs=0.01)


@pytest.mark.quick
def test_an_unpaired_test_would_give_another_answer() -> None:
    seeds = np.random.default_rng(1).normal(0.65, 0.05, 8)
    new = list(seeds + 0.004 + np.random.default_rng(2).normal(0, 0.002, 8))
    pair = pair_of(new, list(seeds))
    assert pair.p_value < 0.05 < ttest_ind(new, seeds).pvalue
    assert pair.outcome == "higher"
    alone = summarize(new)
    assert pair.summary.sd is not None
    assert alone.sd is not None
    assert pair.summary.sd < alone.sd / 5


@pytest.mark.quick
def test_pairs_are_made_by_seed_and_not_by_position() -> None:
    pair = paired_difference("f1", "b", {2: 0.7, 0: 0.5, 5: 0.9}, "a", {0: 0.4, 1: 0.1, 2: 0.7})
    assert pair is not None
    assert set(pair.differences) == {0, 2}
    assert pair.summary.mean == pytest.approx(0.05)
    assert paired_difference("f1", "b", {0: 0.5}, "a", {1: 0.5}) is None


def test_under_no_difference_the_error_rate_is_nominal_and_intervals_cover() -> None:
    rng = np.random.default_rng(5)
    runs = rng.normal(0, 1, (1500, 7))
    rejected = np.mean([sign_flip_p(list(d)) < 0.05 for d in runs])
    covered = np.mean([low <= 0 <= high for d in runs for low, high in [_interval(list(d))]])
    spread = 3 * math.sqrt(0.05 * 0.95 / len(runs))
    nominal = 6 / 2**7  # the largest attainable level below 0.05
    assert rejected == pytest.approx(nominal, abs=3 * math.sqrt(nominal / len(runs)))
    assert covered == pytest.approx(0.95, abs=spread)
    normal = np.mean([low <= 0 <= high for d in runs for low, high in [_interval(list(d), z=True)]])
    assert normal < 0.95 - spread, "an interval by the normal law must fail this check"


def _interval(values: list[float], z: bool = False) -> tuple[float, float]:
    summary = summarize(values)
    assert summary.low is not None
    assert summary.high is not None
    shrink = 1.96 / t.ppf(0.975, len(values) - 1) if z else 1.0
    half = shrink * (summary.high - summary.mean)
    return summary.mean - half, summary.mean + half


@pytest.mark.parametrize("n", range(1, MIN_SEEDS))
def test_too_few_seeds_have_no_winner_however_large_the_gap(n: int) -> None:
    assert pair_of([0.9 + 0.001 * i for i in range(n)], [0.5] * n).outcome == "open"


@pytest.mark.quick
def test_six_seeds_are_the_fewest_that_can_decide() -> None:
    assert 2 / 2**MIN_SEEDS < 0.05 <= 2 / 2 ** (MIN_SEEDS - 1)
    up, base = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95], [0.5] * 6
    assert pair_of(up, base).outcome == "higher"
    assert pair_of(base, up).outcome == "lower"


@pytest.mark.quick
@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=9))
def test_holm_by_its_definition(values: list[float]) -> None:
    order = sorted(range(len(values)), key=values.__getitem__)
    expected, least = [0.0] * len(values), 0.0
    for position, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - position) * values[index]))
        expected[index] = least
    assert holm(values) == pytest.approx(expected)


def test_one_false_winner_among_many_arms_is_as_rare_as_promised() -> None:
    rng = np.random.default_rng(11)
    corrected = uncorrected = 0
    for _ in range(150):
        base = rng.normal(0, 1, 8)
        pairs = [pair_of(list(arm), list(base)) for arm in rng.normal(0, 1, (4, 8))]
        uncorrected += any(pair.outcome in ("higher", "lower") for pair in pairs)
        corrected += any(pair.outcome in ("higher", "lower") for pair in adjust(pairs))
    assert corrected / 150 <= 0.05
    assert uncorrected / 150 > 0.1, "uncorrected, this check must fail"


@pytest.mark.parametrize(("family", "least"), [(1, 6), (2, 7), (4, 8), (8, 9), (20, 10)])
def test_more_comparisons_need_more_seeds_before_any_can_win(family: int, least: int) -> None:
    assert min_seeds(family) == least
    sure = [1 + i / 100 for i in range(least)]
    for n, expected in ((least, "higher"), (least - 1, "open")):
        pairs = adjust([pair_of(sure[:n], [0.0] * n)] * family)
        assert pairs[0].outcome == expected


@pytest.mark.parametrize(("n", "mean", "family"), [(9, 0.9, 1), (12, 1.1, 4)])
def test_power_is_what_simulated_comparisons_have(n: int, mean: float, family: int) -> None:
    rng = np.random.default_rng(n)
    runs = rng.normal(mean, 1, (120, n))
    significant = np.mean([family * sign_flip_p(list(d)) < 0.05 for d in runs])
    assert significant == pytest.approx(power(n, mean, 1.0, family), abs=0.1)
    if family > 1:
        assert significant < power(n, mean, 1.0) - 0.1, (
            "that of a single comparison must fail this check"
        )
    assert power(5, 9.0, 1.0) == 0, "five seeds cannot decide"


@pytest.mark.quick
def test_power_is_that_of_the_textbook_and_a_number_for_any_effect() -> None:
    """G*Power and Cohen's tables: n = 34 at d = 0.5 and n = 15 at d = 0.8, two-sided 5%."""
    assert power(34, 0.5, 1.0) == pytest.approx(0.808, abs=5e-4)
    assert power(15, 0.8, 1.0) == pytest.approx(0.821, abs=5e-4)
    assert power(10, 0.0, 1.0) == pytest.approx(0.05)
    for effect in (2.0, 5.0, 20.0, 1e3):
        assert power(100, effect, 1.0) == pytest.approx(1.0)


def test_the_seeds_needed_are_the_fewest_with_that_power() -> None:
    """Chow, Shao and Wang: a paired effect of half a standard deviation takes about 34."""
    some = summarize([0.5 + d for d in (-1, 1, -1, 1, -1, 1)])
    assert some.sd is not None
    total = seeds_needed(some)
    assert total is not None
    assert power(total, some.mean, some.sd) >= 0.8 > power(total - 1, some.mean, some.sd)
    assert seeds_needed(summarize([1.0, -1.0])) is None, "nothing to go by"
    assert seeds_needed(summarize([1e-9, 1.0, -1.0])) is None, "no useful number"
    assert seeds_needed(summarize([1.0, 1.1, 0.9]), family=20) == 10
