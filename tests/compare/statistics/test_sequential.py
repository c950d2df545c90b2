"""Sequential verdicts against numerical integration, and their promises against simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import nct, norm, t, ttest_1samp

from iwlora.compare.statistics.sequential import (
    PRIOR_VARIANCE,
    draws_for_power,
    half_width,
    log_evidence,
    p_difference,
    p_within,
    power,
    verdicts,
)
from iwlora.results.comparison.record import StoppingRule

RULE = StoppingRule(difference=1.0, error=0.05, power=0.8, max_seeds=40)
SIMULATED = 10_000

draws = st.lists(st.floats(-3, 3).map(lambda value: round(value, 3)), min_size=2, max_size=12)


def simulated(mean: float, sd: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, (SIMULATED, RULE.max_seeds))


def share_wrong(p_values: np.ndarray) -> float:
    """The share of comparisons that reach a verdict at any of their looks."""
    return float((p_values <= RULE.error).any(-1).mean())


@pytest.mark.quick
@pytest.mark.parametrize("values", [[0.3, 0.1, 0.9], [1.2, 0.7, 1.1, 0.4, 1.6, 0.2, 0.9]])
def test_evidence_is_the_ratio_of_the_densities_of_t(values: list[float]) -> None:
    """Integrated over the prior of mean / sd, from SciPy's noncentral t distribution."""
    n = len(values)
    statistic = float(ttest_1samp(values, 0.0).statistic)
    prior = norm(scale=math.sqrt(PRIOR_VARIANCE))

    def weighted(effect: float) -> float:
        return float(nct.pdf(statistic, n - 1, math.sqrt(n) * effect) * prior.pdf(effect))

    marginal = quad(weighted, -12, 12, points=[0.0])[0]
    expected = math.log(marginal / t.pdf(statistic, n - 1))
    assert log_evidence(np.array(values))[-1] == pytest.approx(expected, abs=1e-6)


@given(draws, st.floats(-2, 2))
@settings(max_examples=60)
def test_interval_holds_the_means_without_evidence_against_them(
    values: list[float], mean: float
) -> None:
    differences = np.array(values)
    half = half_width(differences, RULE.error)[-1]
    evidence = log_evidence(differences, mean)[-1]
    inside = abs(differences.mean() - mean) <= half
    if not math.isclose(abs(differences.mean() - mean), half, abs_tol=1e-9):
        assert inside == (evidence < -math.log(RULE.error))


@given(draws)
@settings(max_examples=30)
def test_units_and_signs_do_not_matter(values: list[float]) -> None:
    differences = np.array(values)
    assert log_evidence(differences) == pytest.approx(log_evidence(-100 * differences), abs=1e-6)
    assert p_within(differences, 1.0) == pytest.approx(p_within(-100 * differences, 100.0))


@pytest.mark.quick
def test_no_difference_is_called_one_in_at_most_5_percent_of_all_comparisons() -> None:
    """With a look after every draw. The plain t test, looked at as often, is wrong in a third."""
    null = simulated(0.0)
    assert share_wrong(p_difference(null)) < RULE.error
    looks = range(5, RULE.max_seeds + 1)
    uncorrected = np.stack([ttest_1samp(null[:, :n], 0.0, axis=1).pvalue for n in looks], -1)
    assert share_wrong(uncorrected) > 0.2


@pytest.mark.parametrize("mean", [1.0, -1.0, 1.5])
@pytest.mark.parametrize("sd", [0.3, 1.0, 3.0])
def test_a_difference_that_matters_is_called_within_in_at_most_5_percent(
    mean: float, sd: float
) -> None:
    """Without the correction for looking, the promise is broken."""
    planted = simulated(mean, sd)
    assert share_wrong(p_within(planted, RULE.difference)) < RULE.error
    if mean == 1.0:
        n = np.arange(1, RULE.max_seeds + 1)
        half = np.stack([t.ppf(0.95, k - 1) * planted[:, :k].std(-1, ddof=1) for k in n[4:]], -1)
        below = planted.cumsum(-1)[:, 4:] / n[4:] + half / np.sqrt(n[4:]) < RULE.difference
        assert below.any(-1).mean() > 0.1


@pytest.mark.parametrize("rows", [277, 408])
@pytest.mark.parametrize("sd", [1.0, 2.0])
def test_the_promises_hold_for_differences_of_whole_rows(rows: int, sd: float) -> None:
    """With less spread, differences just below the planned one may hide those above it."""
    rng, point = np.random.default_rng(0), 100 / rows

    def whole(mean: float, spread: float) -> np.ndarray:
        return point * np.round(rng.normal(mean / point, spread, (4000, RULE.max_seeds)))

    assert share_wrong(p_difference(whole(0.0, sd))) < RULE.error
    assert share_wrong(p_within(whole(1.0, sd), RULE.difference)) < RULE.error
    if rows == 408:
        assert share_wrong(p_within(whole(1.0, 0.5), RULE.difference)) > 0.1
    equal = p_within(np.zeros((1, 8)), RULE.difference) <= RULE.error
    assert equal[0].tolist() == [False] * 3 + [True] * 5


def test_intervals_hold_the_true_mean_at_all_looks_together() -> None:
    values = simulated(0.4)
    means = values.cumsum(-1) / np.arange(1, RULE.max_seeds + 1)
    covered = (np.abs(means - 0.4) <= half_width(values, RULE.error)).all(-1).mean()
    assert covered > 1 - RULE.error


def test_over_several_arms_any_wrong_verdict_counts() -> None:
    """Arms that share a baseline have dependent differences."""
    rng = np.random.default_rng(0)
    rule = StoppingRule(difference=1.0, max_seeds=15)
    wrong = uncorrected = 0
    for _ in range(300):
        baseline = rng.normal(0, 0.7, rule.max_seeds)
        arms = {name: rng.normal(0, 0.7, rule.max_seeds) - baseline for name in "abcde"}
        found = verdicts({name: list(values) for name, values in arms.items()}, rule)
        wrong += any(verdict.p_difference <= rule.error for verdict in found.values())
        tests = [
            ttest_1samp(values[:n], 0.0).pvalue for values in arms.values() for n in (6, 10, 15)
        ]
        uncorrected += min(tests) <= rule.error
    assert wrong / 300 < rule.error
    assert uncorrected / 300 > 2 * rule.error


def test_the_mean_over_tasks_that_end_on_their_own_keeps_the_promise() -> None:
    """It has the draws until the first task ends; t tests of them are wrong too often."""
    tasks = [simulated(0.0, sd, seed) for seed, sd in enumerate((1.2, 1.6))]
    looked = np.ones((SIMULATED, RULE.max_seeds), dtype=bool)
    for differences in tasks:
        ended = (p_difference(differences) <= RULE.error) | (p_within(differences, 1.0) <= 0.05)
        looked[:, 1:] &= ~np.logical_or.accumulate(ended, axis=-1)[:, :-1]
    mean = np.mean(tasks, axis=0)
    assert ((p_difference(mean) <= RULE.error) & looked).any(-1).mean() < RULE.error
    uncorrected = [
        looked[:, n - 1] & (ttest_1samp(mean[:, :n], 0.0, axis=1).pvalue <= RULE.error)
        for n in range(5, RULE.max_seeds + 1)
    ]
    assert np.any(uncorrected, axis=0).mean() > 2 * RULE.error


@pytest.mark.quick
def test_outcomes() -> None:
    steady = np.array([-0.1, 0.1, 0.0, 0.05, -0.05, 0.1, -0.1, 0.0])
    found = verdicts(
        {
            "better": list(2.0 + steady),
            "worse": list(-2.0 + steady),
            "within": list(steady),
            "open": list(20 * steady),
            "begun": [3.0],
            "not begun": [],
        },
        RULE,
    )
    assert {arm: verdict.outcome for arm, verdict in found.items()} == {
        "better": "better",
        "worse": "worse",
        "within": "within",
        "open": "open",
        "begun": "open",
    }
    assert (found["begun"].low, found["begun"].high) == (None, None)
    without = {"better": list(2.0 + steady), "not begun": []}
    alone, beside = verdicts({"better": without["better"]}, RULE), verdicts(without, RULE)
    assert beside["better"].p_difference == 2 * alone["better"].p_difference
    low, high = found["better"].low, found["better"].high
    assert low is not None
    assert high is not None
    assert low < 2.0 < high


def test_equal_scores_are_no_evidence_of_a_difference() -> None:
    found = verdicts({"same": [0.0] * 8}, RULE)["same"]
    assert (found.outcome, found.low, found.high, found.p_difference) == ("within", 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("sd", "arms"), [(0.9, 1), (1.5, 3)])
def test_enough_draws_have_the_power_that_was_asked_for(sd: float, arms: int) -> None:
    enough = draws_for_power(RULE, sd, arms)
    assert enough is not None
    reached, before = (
        power(RULE.model_copy(update={"max_seeds": most}), RULE.difference, sd, arms)[0]
        for most in (enough, enough - 3)
    )
    assert before < RULE.power < reached + 0.02
    assert draws_for_power(RULE, 100.0) is None


def test_power_is_the_share_of_simulated_comparisons() -> None:
    """Against the outcomes of whole comparisons, draw by draw."""
    rng = np.random.default_rng(3)
    decided, used = 0, []
    for _ in range(200):
        values = list(rng.normal(1.0, 1.5, RULE.max_seeds))
        for n in range(1, RULE.max_seeds + 1):
            outcome = verdicts({"a": values[:n]}, RULE)["a"].outcome
            if outcome != "open":
                break
        decided += outcome == "better"
        used.append(n)
    reached, mean_draws = power(RULE, 1.0, 1.5)
    assert decided / 200 == pytest.approx(reached, abs=0.1)
    assert np.mean(used) == pytest.approx(mean_draws, rel=0.1)
    assert power(RULE, 1.0, 1.5, arms=4)[0] < reached
