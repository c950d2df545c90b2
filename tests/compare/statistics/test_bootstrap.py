"""Intervals over seeds and examples against simulated truths, metrics against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from iwlora.compare.statistics.bootstrap import (
    METRICS,
    Interval,
    PairedPredictions,
    bootstrap_differences,
    interquartile_mean,
    mean_over_tasks,
    probability_of_improvement,
    variance_of_mean,
)
from iwlora.tasks.metrics.classification import METRICS as REFERENCE


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 30))
def test_metrics_of_weighted_tables_are_those_of_repeated_rows(
    seed: int, classes: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, classes, n), rng.integers(0, classes, (2, 2, n))
    weights = rng.integers(0, 3, (n, 2)).astype(float)
    weights[0] += 1
    for metric in METRICS:
        computed = PairedPredictions(metric, labels, predictions, classes).scores(weights)
        for arm, run, r in np.ndindex(2, 2, 2):
            rows = np.repeat(np.arange(n), weights[:, r].astype(int))
            expected = REFERENCE[metric](labels[rows], predictions[arm, run][rows], 1)
            assert computed[arm, run, r] == pytest.approx(expected, abs=1e-9), metric


def simulated(
    rng: np.random.Generator, seeds: int, examples: int, gain: float, spread: float
) -> PairedPredictions:
    """Two arms with the same hard examples; the arm is better by ``gain``, more so in some seeds.

    The expected accuracy of the baseline is 0.7 and that of the arm 0.7 + gain.
    """
    hard = rng.normal(0, 0.12, examples)
    by_seed = rng.normal(0, spread, seeds)[:, None]
    labels = rng.integers(0, 2, examples)
    right = rng.random((seeds, examples)) < 0.7 + hard
    better = rng.random((seeds, examples)) < 0.7 + hard + gain + by_seed
    predictions = np.where(np.stack([better, right]), labels, 1 - labels)
    return PairedPredictions("accuracy", labels, predictions, 2)


def differences(paired: PairedPredictions) -> list[float]:
    arm, baseline = (paired.predictions == paired.labels).mean(2)
    return [float(d) for d in arm - baseline]


def interval(by_task: list[list[float]], paired: list[PairedPredictions | None]) -> Interval:
    variances = [
        variance_of_mean(task, predictions, seed)
        for seed, (task, predictions) in enumerate(zip(by_task, paired, strict=True))
    ]
    return mean_over_tasks(by_task, variances, None not in paired)


@pytest.mark.parametrize("tasks", [1, 3])
def test_intervals_cover_the_truth(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    covered = percentile = 0
    repetitions = 150 if tasks == 1 else 80
    for _ in range(repetitions):
        paired = [simulated(rng, 6, 100, 0.03, 0.05) for _ in range(tasks)]
        each = interval([differences(task) for task in paired], paired)
        assert each.low is not None
        assert each.high is not None
        covered += each.low <= 0.03 <= each.high
        if tasks == 1:
            means = rng.choice(differences(paired[0]), (400, 6)).mean(1)
            low, high = np.quantile(means, [0.025, 0.975])
            percentile += low <= 0.03 <= high
    assert covered / repetitions > 0.92
    if tasks == 1:
        assert percentile / 150 < 0.92, "percentiles over six seeds alone must fail this check"


def test_examples_widen_what_seeds_alone_leave_narrow() -> None:
    """All seeds agree on the same few examples: seeds alone would be sure of chance."""
    labels = np.zeros(40, dtype=np.int64)
    arm, baseline = np.zeros((6, 40), dtype=np.int64), np.zeros((6, 40), dtype=np.int64)
    arm[:, :4] = 1
    baseline[:, :6] = 1
    paired = PairedPredictions("accuracy", labels, np.stack([arm, baseline]), 2)
    both = interval([differences(paired)], [paired])
    seeds = interval([differences(paired)], [None])
    assert both.examples
    assert not seeds.examples
    assert both.low is not None
    assert seeds.low == seeds.high == pytest.approx(0.05)
    assert both.mean == pytest.approx(0.05)
    assert both.low < 0


@pytest.mark.quick
def test_few_seeds_are_not_taken_for_all_there_are() -> None:
    """Where examples do not matter, the variance is the unbiased one over seeds."""
    right = np.zeros((3, 10), dtype=np.int64)
    arm = right + np.array([[0], [0], [1]])
    paired = PairedPredictions("accuracy", right[0], np.stack([arm, right]), 2)
    d = differences(paired)
    assert d == [0.0, 0.0, -1.0]
    assert variance_of_mean(d, paired) == pytest.approx(variance_of_mean(d), rel=0.15)
    assert variance_of_mean(d) == pytest.approx(np.var(d, ddof=1) / 3)


@pytest.mark.quick
def test_arms_keep_their_pairing() -> None:
    rng = np.random.default_rng(3)
    one = simulated(rng, 6, 200, 0.0, 0.0)
    arm = one.predictions[0]
    same = replace(one, predictions=np.stack([arm, arm]))
    assert not bootstrap_differences(same).any()
    improved = np.where(arm == 1, one.labels, arm)
    assert bootstrap_differences(replace(one, predictions=np.stack([arm, improved]))).any()


@pytest.mark.quick
def test_one_seed_has_no_interval_and_the_mean_weighs_tasks_alike() -> None:
    mean = mean_over_tasks([[0.1], [0.2, 0.4]], [0.0, 0.1], False)
    assert (mean.low, mean.high) == (None, None)
    assert mean.mean == pytest.approx(0.2)


@pytest.mark.quick
def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([[1.0, 2.0], [3.0, 100.0]]).value == 2.5
    assert interquartile_mean([[0.5]]).low is None
    aggregate = interquartile_mean([[0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5]])
    assert aggregate.low is not None
    assert aggregate.high is not None
    assert aggregate.value == pytest.approx(0.3)
    assert 0.1 < aggregate.low < aggregate.value < aggregate.high < 0.5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1))
def test_probability_of_improvement_is_mann_whitney(x: list[int], y: list[int]) -> None:
    aggregate = probability_of_improvement([[float(v) for v in x]], [[float(v) for v in y]])
    u = mannwhitneyu(x, y, method="asymptotic").statistic
    assert aggregate.value == pytest.approx(u / (len(x) * len(y)))


@pytest.mark.quick
def test_probability_of_improvement_is_a_mean_over_tasks() -> None:
    aggregate = probability_of_improvement([[2.0, 3.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]])
    assert aggregate.value == 0.75
