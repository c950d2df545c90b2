"""Whole ranks in proportion to importance, with exactly the cost of a uniform rank."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_UNIT = 2.0**20  # squared distances are rounded to 1/_UNIT, so that equal ones are equal


def allocate_ranks(
    values: Mapping[str, float],
    cost: Mapping[str, int],
    limit: Mapping[str, int],
    r: int,
    minimum: int = 1,
) -> dict[str, int]:
    """{name: rank} with Σ_k cost_k · rank_k exactly as for the rank ``r``, or limit_k if lower.

    The ideal ranks are λ · value_k, limited to [minimum, limit_k], and not whole numbers. The
    result are the whole ranks of this cost with the smallest Σ_k (rank_k − ideal_k)². With equal
    costs this is the method of largest remainders. The first of equally good names is preferred.

    Args:
        values: the importance of each name, at least 0.
        cost: the cost of one rank.
        limit: the largest rank.
        r: the uniform rank, at least the minimum.
        minimum: the smallest rank, where the limit is not lower.

    Example:
        >>> cost, limit = dict.fromkeys("abc", 10), dict.fromkeys("abc", 9)
        >>> allocate_ranks({"a": 4.3, "b": 2.4, "c": 2.3}, cost, limit, r=3)
        {'a': 4, 'b': 3, 'c': 2}
    """
    budget = sum(min(r, limit[name]) * cost[name] for name in cost)
    ideal = _ideal(values, cost, limit, minimum, budget)
    reach = 1
    while True:
        ranks = _nearest(ideal, cost, limit, minimum, budget, reach)
        # All ranks that only a wider search can find have a distance of more than ``reach``.
        if ranks and sum((ranks[n] - ideal[n]) ** 2 for n in ranks) <= reach**2:
            return ranks
        reach *= 2


def _ideal(
    values: Mapping[str, float],
    cost: Mapping[str, int],
    limit: Mapping[str, int],
    minimum: int,
    budget: int,
) -> dict[str, float]:
    """{name: λ · value_k, limited to [minimum, limit_k]}, where λ makes the cost the budget."""
    largest = max(values.values()) or 1.0
    # Names of value 0 share equally what is left when all others have reached their limit.
    scaled = {name: max(value / largest, 1e-12) for name, value in values.items()}

    def at(factor: float) -> dict[str, float]:
        return {n: min(max(factor * v, minimum), limit[n]) for n, v in scaled.items()}

    low, high = 0.0, max(limit.values()) / min(scaled.values())
    for _ in range(100):  # bisection to the precision of floating point
        middle = (low + high) / 2
        spent = sum(rank * cost[name] for name, rank in at(middle).items())
        low, high = (middle, high) if spent <= budget * (1 + 1e-12) else (low, middle)
    return {name: round(rank, 9) for name, rank in at(low).items()}


def _nearest(
    ideal: Mapping[str, float],
    cost: Mapping[str, int],
    limit: Mapping[str, int],
    minimum: int,
    budget: int,
    reach: int,
) -> dict[str, int] | None:
    """The whole ranks of this cost nearest to the ideal ones, of those within ``reach`` of them.

    Dynamic programming over the names: for each sum of costs so far, the least Σ (rank − ideal)².
    By the Cauchy-Schwarz inequality, the sum for ranks at a distance of at most ``reach`` differs
    from that of the ideal ranks by at most max(cost) · reach · √K. Only these sums are stored.
    """
    names = list(ideal)
    step = math.gcd(*cost.values())
    widest = max(cost.values()) // step
    half = math.ceil(widest * reach * math.sqrt(len(names))) + 1
    best = np.full(2 * half + 1, np.inf)
    best[half] = 0.0  # index ``half`` is the rounded cost of the ideal ranks
    aim, exact, choices = 0, 0.0, []
    for name in names:
        exact += cost[name] * ideal[name] / step
        moved, aim = round(exact) - aim, round(exact)
        whole = math.floor(ideal[name])
        after, choice = np.full_like(best, np.inf), np.zeros(len(best), dtype=np.int64)
        lowest = max(min(minimum, limit[name]), whole + 1 - reach)
        for rank in range(lowest, min(limit[name], whole + reach) + 1):
            shift = cost[name] // step * rank - moved
            to = slice(max(shift, 0), len(best) + min(shift, 0))
            come = best[max(-shift, 0) : len(best) - max(shift, 0)]
            distance = come + round((rank - ideal[name]) ** 2 * _UNIT)
            nearer = distance < after[to]
            after[to][nearer] = distance[nearer]
            choice[to][nearer] = rank
        best = after
        choices.append((choice, moved))
    index = half + budget // step - aim
    if not 0 <= index < len(best) or not np.isfinite(best[index]):
        return None
    ranks = {}
    for name, (choice, moved) in zip(reversed(names), reversed(choices), strict=True):
        ranks[name] = int(choice[index])
        index -= cost[name] // step * ranks[name] - moved
    return {name: ranks[name] for name in names}
