"""Whole ranks in proportion to an importance, at exactly the cost of a uniform rank."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_UNIT = 2.0**20  # squared distances are whole numbers of its parts, so that ties are ties


def allocate(
    values: Mapping[str, float],
    cost: Mapping[str, int],
    limit: Mapping[str, int],
    r: int,
    minimum: int = 1,
) -> dict[str, int]:
    """{name: rank} with Σ_k cost_k · rank_k that of rank ``r`` everywhere, not one more or less.

    ``cost`` is what one rank costs, ``limit`` the largest rank. The ranks λ · value_k, cut off at
    ``minimum`` and ``limit``, would be ideal and are not whole; these are the whole ones with the
    least Σ_k (rank_k − ideal_k)². Where ranks cost alike everywhere, they are those of the largest
    remainders. Ties go to the first. Needs ``minimum`` ≤ ``r`` ≤ every limit.

    >>> cost, limit = dict.fromkeys("abc", 10), dict.fromkeys("abc", 9)
    >>> allocate({"a": 4.3, "b": 2.4, "c": 2.3}, cost, limit, r=3)
    {'a': 4, 'b': 3, 'c': 2}
    """
    budget = r * sum(cost.values())
    ideal = _ideal(values, cost, limit, minimum, budget)
    reach = 1
    while True:
        found = _nearest(ideal, cost, limit, minimum, budget, reach)
        # Ranks that a wider search could find lie at a distance of more than its reach.
        if found and sum((found[n] - ideal[n]) ** 2 for n in found) <= reach**2:
            return found
        reach *= 2


def _ideal(
    values: Mapping[str, float],
    cost: Mapping[str, int],
    limit: Mapping[str, int],
    minimum: int,
    budget: int,
) -> dict[str, float]:
    """{name: λ value_k within [minimum, limit]}, with λ such that they cost the budget."""
    largest = max(values.values()) or 1.0
    # Values of 0 get what is left when all others are full, and each as much.
    scaled = {name: max(value / largest, 1e-12) for name, value in values.items()}

    def at(factor: float) -> dict[str, float]:
        return {n: min(max(factor * v, minimum), limit[n]) for n, v in scaled.items()}

    low, high = 0.0, max(limit.values()) / min(scaled.values())
    for _ in range(100):  # halving: as near as floating point gets
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
    """The whole ranks nearest to the ideal ones at this cost, of those within ``reach`` of them.

    Dynamic programming over the sites: for each sum spent so far, the least Σ (rank − ideal)².
    By Cauchy and Schwarz, ranks at a distance of at most ``reach`` never have spent more than
    max(cost) · reach · √K beyond the ideal ranks or short of them, so no other sums are kept.
    """
    names = list(ideal)
    step = math.gcd(*cost.values())
    widest = max(cost.values()) // step
    half = math.ceil(widest * reach * math.sqrt(len(names))) + 1
    best = np.full(2 * half + 1, np.inf)
    best[half] = 0.0  # index half is what the ideal ranks cost, rounded
    aim, exact, choices = 0, 0.0, []
    for name in names:
        exact += cost[name] * ideal[name] / step
        moved, aim = round(exact) - aim, round(exact)
        whole = math.floor(ideal[name])
        after, choice = np.full_like(best, np.inf), np.zeros(len(best), dtype=np.int64)
        for rank in range(max(minimum, whole + 1 - reach), min(limit[name], whole + reach) + 1):
            shift = cost[name] // step * rank - moved
            to = slice(max(shift, 0), len(best) + min(shift, 0))
            come = best[max(-shift, 0) : len(best) - max(shift, 0)]
            distance = come + round((rank - ideal[name]) ** 2 * _UNIT)
            nearer = distance < after[to]
            after[to][nearer] = distance[nearer]
            choice[to][nearer] = rank
        best = after
        choices.append((choice, moved))
    place = half + budget // step - aim
    if not 0 <= place < len(best) or not np.isfinite(best[place]):
        return None
    ranks = {}
    for name, (choice, moved) in zip(reversed(names), reversed(choices), strict=True):
        ranks[name] = int(choice[place])
        place -= cost[name] // step * ranks[name] - moved
    return {name: ranks[name] for name in names}
