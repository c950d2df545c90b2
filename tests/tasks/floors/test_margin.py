"""The margin and its interval: against formulas, against slow code, and against planted truths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import t

from iwlora.tasks.floors.margin import (
    FEWEST_GROUPS,
    JackknifedScore,
    group_rows,
    jackknifed,
    margin,
)

pytestmark = pytest.mark.quick

Metric = Callable[[np.ndarray, np.ndarray], float]

random = np.random.default_rng(0)
LABELS = random.integers(0, 2, 400)
RIGHT = np.where(random.random(400) < 0.9, LABELS, 1 - LABELS)
GROUPS = group_rows([list(range(400))])


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float((labels == predicted).mean())


def f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(2 * (labels & predicted).sum() / (labels.sum() + predicted.sum()))


def score(metric: Metric, predicted: np.ndarray, labels: np.ndarray = LABELS) -> JackknifedScore:
    return jackknifed(lambda rows: metric(labels[rows], predicted[rows]), GROUPS)


def test_the_scores_without_a_group_are_those_that_are_computed_without_it() -> None:
    for metric in (accuracy, f1):
        others = [np.setdiff1d(np.arange(400), group) for group in GROUPS]
        expected = [metric(LABELS[rows], RIGHT[rows]) for rows in others]
        assert score(metric, RIGHT).left_out == pytest.approx(np.array(expected))


def test_of_means_it_is_the_t_interval_over_groups() -> None:
    """With equal groups the jackknife is the standard error of the mean of the groups' means."""
    constant = np.ones(400, dtype=int)
    found = margin(score(accuracy, RIGHT), score(accuracy, constant))
    by_group = [
        accuracy(LABELS[group], RIGHT[group]) - accuracy(LABELS[group], constant[group])
        for group in GROUPS
    ]
    half = t.ppf(0.975, 19) * np.std(by_group, ddof=1) / math.sqrt(20)
    assert found.value == pytest.approx(np.mean(by_group))
    assert found.low == pytest.approx(found.value - half)
    assert found.high == pytest.approx(found.value + half)


@pytest.mark.parametrize("metric", [accuracy, f1])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(metric: Metric) -> None:
    """Two predictors, right in 70% and in 60% of the rows, 200 times drawn.

    The classes are symmetric, so F1 of one of them is 0.7 and 0.6 too.
    """
    draw, covered = np.random.default_rng(1), 0
    for _ in range(200):
        labels = draw.integers(0, 2, 400)
        first, second = (np.where(draw.random(400) < p, labels, 1 - labels) for p in (0.7, 0.6))
        found = margin(score(metric, first, labels), score(metric, second, labels))
        covered += (found.low or 0) <= 0.1 <= (found.high or 0)
    assert 0.9 <= covered / 200 <= 0.99


def test_dependent_rows_stay_together_and_widen_the_interval() -> None:
    passages = [row // 10 for row in range(400)]
    right = np.array([(passage % 3 > 0) for passage in passages])
    labels = right.astype(float)

    def mean(rows: Sequence[int]) -> float:
        return float(labels[rows].mean())

    nothing = JackknifedScore(0.0, np.zeros(20))
    together = margin(jackknifed(mean, group_rows([passages])), nothing)
    shuffled = list(random.permutation(400))
    apart = margin(jackknifed(mean, group_rows([shuffled])), nothing)
    width = [m.high - m.low for m in (together, apart)]  # type: ignore[operator]
    assert width[0] > 1.8 * width[1]


def test_groups_divide_the_rows_by_the_column_with_fewest_values() -> None:
    passages, questions = [row // 4 for row in range(100)], list(range(100))
    groups = group_rows([questions, passages])
    assert sorted(row for group in groups for row in group) == list(range(100))
    assert len(groups) == 20
    of_row = {row: number for number, group in enumerate(groups) for row in group}
    assert all(of_row[row] == of_row[row - row % 4] for row in range(100))
    assert len(group_rows([["the same"] * 100, questions])) == 20
    assert group_rows([["a", "a", "b"]]) == [[0, 1], [2]]


def test_too_few_groups_have_no_interval() -> None:
    groups = group_rows([list(range(FEWEST_GROUPS - 1))])
    scores = jackknifed(lambda rows: float(np.mean(rows)), groups)
    assert margin(scores, scores).low is None
    groups = group_rows([list(range(FEWEST_GROUPS))])
    scores = jackknifed(lambda rows: float(np.mean(rows)), groups)
    assert margin(scores, scores) == type(margin(scores, scores))(0.0, 0.0, 0.0)
