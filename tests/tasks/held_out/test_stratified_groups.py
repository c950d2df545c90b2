"""Held-out rows: a partition, whole groups, each class on both sides, the right size."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iwlora.tasks.held_out.stratified_groups import grouped_split, hold_out, row_groups
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.multi_label import MultiLabel
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.kinds.token_labels import TokenLabels
from iwlora.tasks.splits import dataset_from_rows

pytestmark = pytest.mark.quick

fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 3)


def groups_with(strata: Any, groups: Any) -> dict[int, set[int]]:
    """{class: the groups that have a row of it}."""
    members: dict[int, set[int]] = defaultdict(set)
    for classes, group in zip(strata, groups, strict=True):
        for k in classes:
            members[k].add(group)
    return members


@settings(max_examples=30, deadline=None)
@example(classes=[0, 0, *[1] * 8], fraction=0.25, seed=0)
@example(classes=[*range(5), *range(5), *[5] * 50], fraction=0.1, seed=0)
@given(classes=st.lists(st.integers(0, 5), min_size=1, max_size=60), fraction=fractions, seed=seeds)
def test_rows_of_one_class_each(classes: list[int], fraction: float, seed: int) -> None:
    strata = [(k,) for k in classes]
    held = hold_out(strata, range(len(classes)), fraction, seed)
    assert held.tolist() == hold_out(strata, range(len(classes)), fraction, seed).tolist()
    divisible = {k for k in classes if classes.count(k) > 1}
    assert {k for k, taken in zip(classes, held, strict=True) if taken} == divisible
    assert {k for k, taken in zip(classes, held, strict=True) if not taken} == set(classes)
    most = len(classes) - len(set(classes))
    wanted = max(1, round(fraction * len(classes)))
    assert held.sum() == min(most, max(wanted, len(divisible)))
    # What rare classes get above their share, because each gets a row, is missing elsewhere.
    above = sum(max(0.0, 1 - fraction * classes.count(k)) for k in divisible)
    for k in divisible if wanted >= len(divisible) else ():
        count = sum(taken for c, taken in zip(classes, held, strict=True) if c == k)
        share = fraction * classes.count(k)
        near = share - 1 < count or share - 0.5 - above <= count + 1e-9
        assert near or most < wanted or count == classes.count(k) - 1
        assert count < share + len(set(classes)), "no class pays for the others"


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.lists(st.integers(0, 4), max_size=3, unique=True), st.integers(0, 12)),
        min_size=1,
        max_size=60,
    ),
    fraction=fractions,
    seed=seeds,
)
def test_groups_of_rows_with_several_classes(
    rows: list[tuple[list[int], int]], fraction: float, seed: int
) -> None:
    strata, groups = [row or (-1,) for row, _ in rows], [group for _, group in rows]
    held = hold_out(strata, groups, fraction, seed)
    inside, outside = (
        {group for group, taken in zip(groups, held, strict=True) if taken == side}
        for side in (True, False)
    )
    assert not inside & outside, "a group is divided"
    for k, members in groups_with(strata, groups).items():
        assert members & outside, f"class {k} is not trained on"
    sizes = [groups.count(group) for group in inside]
    wanted = max(1, round(fraction * len(rows)))
    if sum(sizes) > wanted:  # only so that each class has a row
        assert len(sizes) <= len({k for row in strata for k in row})


@settings(max_examples=30, deadline=None)
@given(groups=st.lists(st.integers(0, 9), min_size=2, max_size=40), fraction=fractions, seed=seeds)
def test_groups_of_one_class_are_on_both_sides(
    groups: list[int], fraction: float, seed: int
) -> None:
    classes = [group % 3 for group in groups]
    held = hold_out([(k,) for k in classes], groups, fraction, seed)
    for k, members in groups_with([(k,) for k in classes], groups).items():
        sides = {bool(t) for c, t in zip(classes, held, strict=True) if c == k}
        assert sides == ({True, False} if len(members) > 1 else {False})
    largest = max(map(groups.count, groups))
    assert abs(held.sum() - fraction * len(groups)) <= largest * (1 + len(set(classes)))


def test_a_rare_class_is_scored_and_trained_on() -> None:
    rows = [(f"text {i}", int(i < 9)) for i in range(300)]
    random.Random(0).shuffle(rows)
    rest, held = grouped_split(dataset_from_rows(["text"], rows), ["text"], Classification(), 0.1)
    assert (len(rest), len(held)) == (270, 30)
    assert 1 <= sum(held["label"]) <= 2


def test_many_classes_of_few_rows() -> None:
    rows = [(f"text {i}", i % 50) for i in range(200)]
    rest, held = grouped_split(dataset_from_rows(["text"], rows), ["text"], Classification(), 0.1)
    assert sorted(held["label"]) == list(range(50))
    assert len(rest) == 150


def test_equal_texts_and_groups_stay_on_one_side() -> None:
    rows = dataset_from_rows(
        ["text", "patient"], [(f"text {i // 2}", f"{i % 10}", i % 2) for i in range(40)]
    )
    rest, held = grouped_split(rows, ["text"], Classification(), 0.25)
    assert len(held) == 10
    assert not set(rest["text"]) & set(held["text"])
    assert set(rest["patient"]) & set(held["patient"])
    rest, held = grouped_split(rows, ["text"], Classification(), 0.25, group="patient")
    assert not set(rest["text"]) & set(held["text"])
    assert not set(rest["patient"]) & set(held["patient"])
    assert 4 <= len(held) <= 16


def test_groups_are_the_components_of_equal_texts_and_groups() -> None:
    rows = [
        ("a", "1", 0),
        ("b", "1", 0),
        ("b", "2", 0),
        ("c", "3", 0),
        ("d", "3", 0),
        ("e", "4", 0),
    ]
    split = dataset_from_rows(["text", "author"], rows)
    assert row_groups(split, ["text"], "author").tolist() == [0, 0, 0, 1, 1, 2]


def test_numbers_of_every_size_are_held_out() -> None:
    targets = np.random.default_rng(0).lognormal(0, 2, 200).tolist()
    rows = dataset_from_rows(["text"], [(str(i), t) for i, t in enumerate(targets)], Regression())
    _, held = grouped_split(rows, ["text"], Regression(), 0.1)
    tenths = np.searchsorted(np.quantile(targets, np.arange(0.1, 1, 0.1)), held["label"][:])
    assert sorted(tenths) == sorted([*range(10)] * 2)
    few = rows.select(range(20))
    assert len(grouped_split(few, ["text"], Regression(), 0.1)[1]) == 2, "not one of each tenth"


def test_classes_of_lists() -> None:
    labels = [[0], [0, 1], [1], [], [2], [2, 0], [], [1]]
    rows = [(str(i), label) for i, label in enumerate(labels)]
    split = dataset_from_rows(["text"], rows, MultiLabel())
    assert MultiLabel().strata(labels, 1) == [[0], [0, 1], [1], (-1,), [2], [0, 2], (-1,), [1]]
    for part in grouped_split(split, ["text"], MultiLabel(), 0.1):
        assert {k for row in part["label"] for k in row or [-1]} == {-1, 0, 1, 2}
    words = dataset_from_rows(["w"], [(["a", str(i)], [0, i % 2]) for i in range(8)], TokenLabels())
    for part in grouped_split(words, ["w"], TokenLabels(), 0.1):
        assert {k for row in part["label"] for k in row} == {0, 1}


def test_rows_without_classes_and_tiny_files() -> None:
    from iwlora.tasks.kinds.generation.kind import Seq2Seq

    for count in (1, 2, 3, 20):
        rows = [(f"source {i}", f"target {i}") for i in range(count)]
        split = dataset_from_rows(["source"], rows, Seq2Seq())
        _, held = grouped_split(split, ["source"], Seq2Seq(), 0.1)
        assert len(held) == {1: 0, 2: 1, 3: 1, 20: 2}[count]
