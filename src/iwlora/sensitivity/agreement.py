"""How far two measurements agree: two tasks, two models, two estimators. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from iwlora.errors import IwloraError
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity


@dataclass(frozen=True)
class Agreement:
    """Two measurements of the same matrices, or of those that correspond.

    ``shares`` has {site name of the first: (its share in the first, in the second)}, each
    summing to 1. ``rank_correlation`` is Spearman's ρ of them, ``moved`` the part of the
    importance that lies elsewhere, ½ Σ |difference|.
    """

    shares: dict[str, tuple[float, float]]
    rank_correlation: float
    moved: float


def compare(first: Sensitivity, second: Sensitivity) -> Agreement:
    """Compare two measurements matrix by matrix.

    Matrices correspond by name; where no name is common, by kind and by the place of their
    block, so that a block halfway up one model meets the one halfway up the other.

    Raises ``IwloraError`` with fewer than three pairs, of which no ranking can be told.

    >>> def found(*values):
    ...     sites = [SiteSensitivity(f"w{i}", "q", i, 2, 2, v, None) for i, v in enumerate(values)]
    ...     return Sensitivity(tuple(sites), "exact", 1, None, False, 0.0)
    >>> compare(found(1.0, 2.0, 3.0), found(4.0, 9.0, 7.0)).rank_correlation
    0.5
    """
    from scipy.stats import spearmanr

    pairs = list(_by_name(first, second)) or list(_by_place(first, second))
    if len(pairs) < 3:
        raise IwloraError(
            f"the measurements have {len(pairs)} matrices in common, by name or by kind; "
            "at least 3 are needed to compare their order"
        )
    totals = [math.fsum(pair[side].value for pair in pairs) for side in (0, 1)]
    if not all(totals):
        raise IwloraError("the matrices in common have sensitivity 0 in one of the measurements")
    shares = {one.name: (one.value / totals[0], two.value / totals[1]) for one, two in pairs}
    left, right = zip(*shares.values(), strict=True)
    if len(set(left)) == 1 or len(set(right)) == 1:
        raise IwloraError("one of the measurements has equal values everywhere, and no order")
    moved = 0.5 * math.fsum(abs(a - b) for a, b in shares.values())
    return Agreement(shares, float(spearmanr(left, right).statistic), moved)


Pair = tuple[SiteSensitivity, SiteSensitivity]


def _by_name(first: Sensitivity, second: Sensitivity) -> Iterator[Pair]:
    others = {site.name: site for site in second.sites}
    return ((site, others[site.name]) for site in first.sites if site.name in others)


def _by_place(first: Sensitivity, second: Sensitivity) -> Iterator[Pair]:
    tops = [max(site.depth for site in found.sites) for found in (first, second)]
    others = {(site.kind, site.depth): site for site in second.sites}
    for site in first.sites:
        depth = round(site.depth * tops[1] / tops[0]) if tops[0] else 0
        if (site.kind, depth) in others:
            yield site, others[site.kind, depth]
