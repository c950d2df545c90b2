"""Groups of layers against all compositions; divisions of a budget against their definition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from iwlora.errors import IwloraError
from iwlora.methods.grouped.division import Cost, divide, layer_weights, total
from iwlora.methods.grouped.grouping import Pattern, group_sizes, satisfies

pytestmark = pytest.mark.quick

INEQUALITIES: dict[str, Any] = {
    "increasing": lambda a, b, c, d: a < b < c < d,
    "decreasing": lambda a, b, c, d: a > b > c > d,
    "uniform": lambda a, b, c, d: a == b == c == d,
    "spindle": lambda a, b, c, d: a < b == c > d,
    "bottleneck": lambda a, b, c, d: a > b == c < d,
}
RATIOS = {"increasing": (1, 2, 3, 4), "spindle": (1, 2, 2, 1), "bottleneck": (2, 1, 1, 2)}
RATIOS |= {"decreasing": (4, 3, 2, 1)}


def compositions(layers: int) -> Iterator[tuple[int, ...]]:
    for cuts in itertools.combinations(range(1, layers), 3):
        edges = (0, *cuts, layers)
        yield tuple(b - a for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize("pattern", RATIOS)
def test_four_groups_are_the_nearest_of_all_compositions(pattern: Any) -> None:
    ratio = RATIOS[pattern]
    for layers in range(4, 37):
        shares = [layers * part / sum(ratio) for part in ratio]

        def distance(sizes: tuple[int, ...], shares: list[float] = shares) -> float:
            return round(sum((n - s) ** 2 for n, s in zip(sizes, shares, strict=True)), 9)

        every = list(compositions(layers))
        strict = [sizes for sizes in every if INEQUALITIES[pattern](*sizes)]
        chosen = group_sizes(pattern, layers, 4)
        assert chosen in (strict or every)
        assert distance(chosen) == min(map(distance, strict or every))


def test_patterns_are_the_inequalities() -> None:
    for pattern in get_args(Pattern):
        for sizes in compositions(11):
            assert satisfies(pattern, sizes) == INEQUALITIES[pattern](*sizes)


def test_groups_of_known_models() -> None:
    assert group_sizes("spindle", 12, 4) == (2, 4, 4, 2)
    assert group_sizes("uniform", 12, 4) == (3, 3, 3, 3)
    assert [group_sizes(p, 6, 4) for p in ("spindle", "bottleneck", "increasing")] == [
        (1, 2, 2, 1),
        (2, 1, 1, 2),
        (1, 1, 2, 2),  # largest remainders: no strict pattern exists
    ]


@pytest.mark.parametrize(("pattern", "layers"), [("uniform", 6), ("spindle", 3)])
def test_impossible_groups_are_refused(pattern: Any, layers: int) -> None:
    with pytest.raises(IwloraError, match=r"6 layers do not divide|4 groups of 3 layers"):
        group_sizes(pattern, layers, 4)


def test_the_biases_are_deducted_and_remainders_carried() -> None:
    layers = [
        (1.0, {"lora": Cost(0, 50), "pfeiffer": Cost(16, 33)}),
        (1.0, {"bitfit": Cost(40, 0)}),
        (3.0, {"prefix": Cost(0, 10), "bitfit": Cost(40, 0), "lora": Cost(0, 50)}),
    ]
    sizes = divide(1002, layers)
    # 922 are left: 230.5 for the first layer and 691.5 for the third, half of it for each part.
    assert sizes[0] == {"lora": 2, "pfeiffer": 3}  # 115.25 → 100; 115.25 + 15.25 → 115
    assert sizes[1] == {"bitfit": 0}
    # 345.75 + 15.5 → 350; 345.75 + 11.25 → 360. Without what is carried: 345.75 → 350 and 350.
    assert sizes[2] == {"prefix": 36, "bitfit": 0, "lora": 7}
    assert total(layers, sizes) == 80 + 100 + 115 + 350 + 360


@pytest.mark.parametrize("budget", [70, 90, 150])
def test_a_budget_that_cannot_be_divided_is_refused(budget: int) -> None:
    layers = [(1.0, {"bitfit": Cost(80, 0), "lora": Cost(0, 50)})]
    if budget == 150:
        with pytest.raises(IwloraError, match="the nearest division of it has 130"):
            divide(budget, layers)
    else:
        with pytest.raises(IwloraError, match=r"biases alone have 80|nearest division"):
            divide(budget, layers)


def test_weights_have_the_mean_1() -> None:
    assert layer_weights("uniform", [0, 0, 1]) == [1, 1, 1]
    assert layer_weights("decreasing", [0, 0, 1]) == [1.5, 1, 0.5]
    assert layer_weights((1.0, 4.0), [0, 0, 1]) == [0.5, 0.5, 2.0]
