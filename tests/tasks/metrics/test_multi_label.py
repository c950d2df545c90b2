"""Metrics of several classes for a row, against scikit-learn and the formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from iwlora.tasks.kinds.multi_label import MultiLabel
from iwlora.tasks.metrics.multi_label import multi_label_class_scores, multi_label_scores
from iwlora.tasks.schema import TaskSchema

pytestmark = pytest.mark.quick

sizes = st.tuples(st.integers(1, 30), st.integers(2, 5), st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_scikit_learn_gives_the_same_for_two_classes_and_more(size: tuple[int, int, int]) -> None:
    rows, classes, seed = size
    labels, predictions = np.random.default_rng(seed).random((2, rows, classes)) < 0.4
    expected = {
        f"{average}_f1": f1_score(labels, predictions, average=average, zero_division=0.0)
        for average in ("micro", "macro")
    }
    expected["accuracy"] = accuracy_score(labels, predictions)
    assert multi_label_scores(labels, predictions) == pytest.approx(expected, abs=1e-12)
    names = [f"class {number}" for number in range(classes)]
    by_class = multi_label_class_scores(names, labels, predictions)
    columns = precision_recall_fscore_support(labels, predictions, zero_division=0.0)
    for name, p, r, f, n in zip(names, *columns, strict=True):
        one = {"f1": f, "precision": p, "recall": r, "rows": n}
        assert by_class[name] == pytest.approx(one, abs=1e-12)


def test_of_one_class_only_its_presence_counts() -> None:
    """One right, one missed, one false, seven rows without it: F1 is 1/2, the accuracy is 8/10."""
    has, predicted = [["toxic"]] * 2 + [[]] * 8, [["toxic"], [], ["toxic"]] + [[]] * 7
    metrics = MultiLabel.default_metrics
    schema = TaskSchema("t", ("text",), ("toxic",), metrics)
    scores = MultiLabel().prediction_scores(schema, has, predicted)
    assert scores == {"micro_f1": 0.5, "macro_f1": 0.5, "accuracy": 0.8}
    of_class = multi_label_class_scores(
        ["toxic"], [[len(row)] for row in has], [[len(row)] for row in predicted]
    )
    assert of_class == {"toxic": {"f1": 0.5, "precision": 0.5, "recall": 0.5, "rows": 2}}
