"""Ranks against a search through all of them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.rank_pattern import _ideal, allocate_ranks

pytestmark = pytest.mark.quick

matrix = st.tuples(
    st.sampled_from([0.0, 1e-6, 0.3, 1.0, 2.5, 7.0, 1e6]),  # value
    st.integers(2, 7),  # the smaller side, which is the largest rank
    st.integers(7, 12),  # the other
)


@settings(max_examples=60, deadline=None)
@given(
    matrices=st.lists(matrix, min_size=1, max_size=4).filter(lambda m: any(v for v, _, _ in m)),
    r=st.integers(1, 7),
    minimum=st.integers(0, 2),
)
def test_they_are_the_nearest_of_all_that_cost_the_budget(
    matrices: list[tuple[float, int, int]], r: int, minimum: int
) -> None:
    names = [str(i) for i in range(len(matrices))]
    values, smaller, larger = (
        dict(zip(names, column, strict=True)) for column in zip(*matrices, strict=True)
    )
    r = min(r, *smaller.values())
    minimum = min(minimum, r)
    cost = {name: smaller[name] + larger[name] for name in names}
    budget = r * sum(cost.values())
    ideal = _ideal(values, cost, smaller, minimum, budget)

    def distance(ranks: dict[str, int]) -> float:
        return sum((ranks[name] - ideal[name]) ** 2 for name in names)

    every = (
        dict(zip(names, ranks, strict=True))
        for ranks in product(*(range(minimum, smaller[name] + 1) for name in names))
    )
    of_that_cost = [
        ranks for ranks in every if sum(ranks[name] * cost[name] for name in names) == budget
    ]
    computed = allocate_ranks(values, cost, smaller, r, minimum)
    assert computed in of_that_cost
    assert distance(computed) < min(map(distance, of_that_cost)) + 1e-4


def test_the_ideal_ranks_are_in_proportion_and_cost_the_budget() -> None:
    cost, limit = {"a": 30, "b": 40, "c": 50}, {"a": 9, "b": 9, "c": 9}
    ideal = _ideal({"a": 1.0, "b": 2.0, "c": 0.0}, cost, limit, 1, 3 * 120)
    assert ideal["b"] / ideal["a"] == 2.0
    assert ideal["c"] == 1
    assert abs(sum(cost[n] * ideal[n] for n in cost) - 360) < 1e-6


def test_what_the_full_leave_goes_to_those_of_no_value_alike() -> None:
    values, limit = {"a": 1.0, "b": 0.0, "c": 0.0}, {"a": 6, "b": 9, "c": 9}
    ranks = allocate_ranks(values, dict.fromkeys("abc", 8), limit, r=5)
    assert ranks == {"a": 6, "b": 5, "c": 4}


def test_a_model_of_seven_billion_parameters_takes_no_time() -> None:
    shapes = ([(4096, 4096)] * 4 + [(4096, 11008)] * 3) * 32
    values = {str(i): 1.0 + i % 17 for i in range(len(shapes))}
    cost = {str(i): sum(shape) for i, shape in enumerate(shapes)}
    ranks = allocate_ranks(values, cost, dict.fromkeys(cost, 4096), r=16)
    assert sum(cost[n] * ranks[n] for n in ranks) == 16 * sum(cost.values())
    worth = sum(values[n] * cost[n] for n in cost)
    ideal = {n: 16 * sum(cost.values()) * values[n] / worth for n in cost}
    assert all(abs(ranks[n] - ideal[n]) < 1 for n in ranks)
