"""Metrics against their formulas, written out from the confusion counts."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.errors import IwloraError
from iwlora.tasks.metrics.classification import (
    METRICS,
    accuracy,
    f1,
    macro_f1,
    matthews_correlation,
    score,
)

pytestmark = pytest.mark.quick

binary = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
ternary = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


def arrays(pairs):
    labels, predictions = zip(*pairs, strict=True)
    return np.array(labels), np.array(predictions)


def counts(pairs, positive):
    tp = sum(label == positive == guess for label, guess in pairs)
    fp = sum(label != positive == guess for label, guess in pairs)
    fn = sum(label == positive != guess for label, guess in pairs)
    return tp, fp, fn, len(pairs) - tp - fp - fn


def f1_by_hand(pairs, positive):
    tp, fp, fn, _ = counts(pairs, positive)
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


@settings(deadline=None, max_examples=50)
@given(ternary)
def test_accuracy(pairs):
    right = sum(label == guess for label, guess in pairs)
    assert accuracy(*arrays(pairs)) == pytest.approx(right / len(pairs), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(binary, st.integers(0, 1))
def test_f1_of_either_class(pairs, positive):
    assert f1(*arrays(pairs), positive) == pytest.approx(f1_by_hand(pairs, positive), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(ternary)
def test_macro_f1(pairs):
    present = {each for pair in pairs for each in pair}
    by_hand = sum(f1_by_hand(pairs, each) for each in present) / len(present)
    assert macro_f1(*arrays(pairs)) == pytest.approx(by_hand, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(binary)
def test_matthews_correlation(pairs):
    tp, fp, fn, tn = counts(pairs, 1)
    below = sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    by_hand = (tp * tn - fp * fn) / below if below else 0.0
    assert matthews_correlation(*arrays(pairs)) == pytest.approx(by_hand, abs=1e-12)


def test_the_positive_class_matters():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert f1(labels, predictions, 0) == pytest.approx(4 / 5)
    assert f1(labels, predictions, 1) == pytest.approx(2 / 3)


def test_score_takes_the_largest_logit_and_adds_the_loss():
    logits = [[log(1), log(3)], [log(9), log(1)], [log(1), log(1)]]
    scores = score(["accuracy", "f1"], [1, 1, 0], logits, positive=1)
    assert list(scores) == ["accuracy", "f1", "loss"]
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["loss"] == pytest.approx(-(log(3 / 4) + log(1 / 10) + log(1 / 2)) / 3)


def test_score_passes_the_positive_class_on():
    logits = np.eye(2)[[0, 0, 1, 1]]
    first, second = (score(["f1"], [0, 0, 0, 1], logits, positive=each)["f1"] for each in (0, 1))
    assert (first, second) == (pytest.approx(4 / 5), pytest.approx(2 / 3))


def test_the_loss_is_exact_far_from_zero():
    logits = np.array([[1000.0, 0.0], [1e4, 1e4 + log(3)]], dtype=np.float32)
    gap = float(logits[1, 1]) - float(logits[1, 0])
    by_hand = (1000.0 + np.log1p(np.exp(-gap))) / 2
    assert score(["accuracy"], [1, 1], logits)["loss"] == pytest.approx(by_hand, rel=1e-14)


def test_every_metric_is_a_plain_float():
    labels, predictions = np.array([0, 1]), np.array([1, 1])
    assert all(type(metric(labels, predictions, 1)) is float for metric in METRICS.values())


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([], np.zeros((0, 2))), ([0, 1], np.zeros((3, 2))), ([0, 1], np.zeros(2))],
)
def test_shapes_that_do_not_fit(labels, logits):
    with pytest.raises(IwloraError, match="cannot be scored"):
        score(["accuracy"], labels, logits)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_of_a_diverged_model(value):
    with pytest.raises(IwloraError, match=r"not finite.*train\.lr"):
        score(["accuracy"], [0], [[value, 0.0]])
