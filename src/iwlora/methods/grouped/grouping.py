"""Which layers form a group: a pattern of the groups' sizes, or their counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

from iwlora.errors import IwloraError

Pattern = Literal["increasing", "uniform", "decreasing", "spindle", "bottleneck"]
MOST_GROUPS = 8
_NEAR = 2  # layers by which a group may differ from its share of the ratio


def group_sizes(pattern: Pattern, layers: int, groups: int) -> tuple[int, ...]:
    """How many layers each group has, the first group at the input.

    ===========  ================================  =======================
    pattern      of four groups                    ratio that it is near
    ===========  ================================  =======================
    increasing   N1 < N2 < N3 < N4                 1 : 2 : 3 : 4
    decreasing   N1 > N2 > N3 > N4                 4 : 3 : 2 : 1
    uniform      N1 = N2 = N3 = N4                 1 : 1 : 1 : 1
    spindle      N1 < N2 = N3 > N4                 1 : 2 : 2 : 1
    bottleneck   N1 > N2 = N3 < N4                 2 : 1 : 1 : 2
    ===========  ================================  =======================

    Several counts satisfy a pattern; the result is nearest to the ratio, by the sum of squared
    differences. Where none does, it is nearest to the ratio with at least one layer in each group
    (largest remainders); only ``uniform`` is then refused. The first of equally near counts is
    taken.

    Args:
        pattern: its name.
        layers: the number of layers.
        groups: the number of groups, at most 8.

    Raises:
        IwloraError: there are more groups than layers, or uniform groups are impossible.

    Example:
        >>> group_sizes("spindle", 12, 4), group_sizes("spindle", 6, 4)
        ((2, 4, 4, 2), (1, 2, 2, 1))
        >>> group_sizes("increasing", 6, 4)
        (1, 1, 2, 2)

    Source:
        Chen et al. 2023, arXiv:2301.01821, which has the inequalities; the ratios are this
        project's.
    """
    if not 1 <= groups <= min(layers, MOST_GROUPS):
        raise IwloraError(
            f"{groups} groups of {layers} layers were asked for; accepted are 1 to "
            f"{min(layers, MOST_GROUPS)}"
        )
    if pattern == "uniform":
        if layers % groups:
            raise IwloraError(
                f"groups=uniform was given, and {layers} layers do not divide into {groups} equal "
                "groups; give another pattern, or the counts"
            )
        return (layers // groups,) * groups
    ratio = _ratio(pattern, groups)
    shares = [layers * part / sum(ratio) for part in ratio]
    near = [range(max(1, round(s) - _NEAR), round(s) + _NEAR + 1) for s in shares]
    satisfying = (
        sizes
        for sizes in itertools.product(*near)
        if sum(sizes) == layers and _SATISFIES[pattern](sizes)
    )
    nearest = min(satisfying, key=lambda sizes: _distance(sizes, shares), default=None)
    return nearest or _largest_remainders(layers, shares)


def satisfies(pattern: Pattern, sizes: Sequence[int]) -> bool:
    """Whether the sizes of groups have the inequalities of the pattern.

    >>> satisfies("spindle", (1, 2, 2, 1)), satisfies("increasing", (1, 1, 2, 2))
    (True, False)
    """
    return _SATISFIES[pattern](sizes)


def _rises(sizes: Sequence[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(sizes))


def _is_equal(sizes: Sequence[int]) -> bool:
    return len(set(sizes)) <= 1


def _bulges(sizes: Sequence[int]) -> bool:
    """Equal groups between a smaller first and a smaller last one."""
    if len(sizes) < 3:
        return False
    first, *middle, last = sizes
    return _is_equal(middle) and first < middle[0] > last


_SATISFIES: dict[str, Callable[[Sequence[int]], bool]] = {
    "increasing": _rises,
    "uniform": _is_equal,
    "decreasing": lambda sizes: _rises(sizes[::-1]),
    "spindle": _bulges,
    "bottleneck": lambda sizes: _bulges([-size for size in sizes]),
}


def _ratio(pattern: Pattern, groups: int) -> list[int]:
    if pattern in ("increasing", "decreasing"):
        rising = list(range(1, groups + 1))
        return rising if pattern == "increasing" else rising[::-1]
    ends, middle = (1, 2) if pattern == "spindle" else (2, 1)
    return [ends if k in (0, groups - 1) else middle for k in range(groups)]


def _distance(sizes: Sequence[int], shares: Sequence[float]) -> float:
    return round(sum((n - s) ** 2 for n, s in zip(sizes, shares, strict=True)), 9)


def _largest_remainders(layers: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers nearest to the shares, of at least 1, with their sum."""
    sizes = [max(1, int(share)) for share in shares]
    while sum(sizes) != layers:
        step = 1 if sum(sizes) < layers else -1
        changeable = [k for k in range(len(sizes)) if sizes[k] + step >= 1]
        k = max(changeable, key=lambda k: round(step * (shares[k] - sizes[k]), 9))
        sizes[k] += step
    return tuple(sizes)


def is_tuned(tuned: Literal["all"] | Sequence[int], group: int) -> bool:
    """Whether a group, by its number from 1, has parts.

    >>> is_tuned("all", 4), is_tuned((1, 2), 2), is_tuned((1, 2), 3)
    (True, True, False)
    """
    return tuned == "all" or group in tuned
