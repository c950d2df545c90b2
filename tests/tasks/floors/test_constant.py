"""The best constant predictions, against trying all of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from iwlora.tasks.floors.constant import most_frequent, most_frequent_classes

pytestmark = pytest.mark.quick


def test_the_commonest_value() -> None:
    assert most_frequent([3, 1, 3, 2]) == 3
    assert most_frequent(["b", "a", "a", "b"]) == "b"  # the first of equals


def best_f1(rows: list[list[int]], classes: int) -> float:
    """The largest micro F1 of any set of classes that is predicted for every row."""
    targets = np.array([[k in row for k in range(classes)] for row in rows])

    def f1(chosen: tuple[int, ...]) -> float:
        predicted = np.array([[k in chosen for k in range(classes)]] * len(rows))
        return float(f1_score(targets, predicted, average="micro", zero_division=0.0))

    sets = [c for size in range(classes + 1) for c in combinations(range(classes), size)]
    return max(map(f1, sets))


def test_no_other_classes_give_a_larger_f1() -> None:
    random = np.random.default_rng(0)
    for _ in range(8):
        shares = random.random(4)
        rows = [[k for k in range(4) if random.random() < shares[k]] for _ in range(12)]
        chosen = most_frequent_classes(rows)
        targets = np.array([[k in row for k in range(4)] for row in rows])
        predicted = np.array([[k in chosen for k in range(4)]] * len(rows))
        score = f1_score(targets, predicted, average="micro", zero_division=0.0)
        assert score == pytest.approx(best_f1(rows, 4))
    assert most_frequent_classes([[], []]) == []
