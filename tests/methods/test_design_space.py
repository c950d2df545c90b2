"""The space of designs against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.space import combinations, default_groupings, default_space


@pytest.mark.parametrize("depth", [4, 6, 8, 12, 24])
def test_the_default_groupings_are_the_patterns_that_some_composition_has(depth: int) -> None:
    rules = {
        "increasing": lambda a, b, c, d: a < b < c < d,
        "uniform": lambda a, b, c, d: a == b == c == d,
        "decreasing": lambda a, b, c, d: a > b > c > d,
        "spindle": lambda a, b, c, d: a < b == c > d,
        "bottleneck": lambda a, b, c, d: a > b == c < d,
    }
    every = [n for n in itertools.product(range(1, depth), repeat=4) if sum(n) == depth]
    possible = {name for name, rule in rules.items() if any(rule(*n) for n in every)}
    assert {*default_groupings([depth], 4)} == possible
    assert {*default_groupings([depth, 6], 4)} == possible & {"spindle", "bottleneck"}


def test_the_sets_are_those_that_may_share_a_layer_and_samples_are_designs() -> None:
    sets = combinations(["pfeiffer", "prefix", "bitfit", "lora"])
    assert len(sets) == len({*map(frozenset, sets)}) == 15
    assert ("lora", "dora") not in combinations(["lora", "dora"])
    space = default_space(4, ["pfeiffer", "prefix", "bitfit", "lora"], [12])
    generator = np.random.default_rng(0)
    drawn = [space.sample(generator) for _ in range(300)]
    for point in drawn:
        Grouped(**point)
    assert {point["groups"] for point in drawn} == {*space.grouping}
    assert {point["tuned"] for point in drawn} == {*space.tuned}
    assert {names for point in drawn for names in point["strategies"]} == {*sets}
    assert space.sample(np.random.default_rng(7)) == space.sample(np.random.default_rng(7))
