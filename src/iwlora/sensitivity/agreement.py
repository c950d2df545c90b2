"""How well two measurements agree: of two tasks, two models or two estimators. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iwlora.errors import IwloraError
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity


@dataclass(frozen=True)
class Agreement:
    """How well two measurements agree.

    Args:
        shares: {site name in the first: (share in the first, share in the second)}; the shares
            of each measurement sum to 1.
        rank_correlation: Spearman's ρ of the shares.
        moved: the part of the importance that is on other matrices, ½ Σ |difference|.
    """

    shares: dict[str, tuple[float, float]]
    rank_correlation: float
    moved: float


def compare(first: Sensitivity, second: Sensitivity) -> Agreement:
    """Compare two measurements matrix by matrix.

    Matrices are paired by name. If no name is in both, they are paired by kind and relative depth:
    a block in the middle of one model is paired with the block in the middle of the other.

    Raises:
        IwloraError: there are fewer than three pairs, all sensitivities of one measurement are
            zero, or they are all equal.

    Example:
        >>> def measurement(*values):
        ...     sites = [SiteSensitivity(f"w{i}", "q", i, 2, 2, v, None)
        ...              for i, v in enumerate(values)]
        ...     return Sensitivity(tuple(sites), "exact", 1, None, False, 0.0)
        >>> compare(measurement(1.0, 2.0, 3.0), measurement(4.0, 9.0, 7.0)).rank_correlation
        0.5
    """
    pairs = list(_by_name(first, second)) or list(_by_depth(first, second))
    if len(pairs) < 3:
        raise IwloraError(
            f"the measurements have {len(pairs)} matrices in common, by name or by kind; "
            "a comparison needs at least 3"
        )
    totals = [math.fsum(pair[side].value for pair in pairs) for side in (0, 1)]
    if not all(totals):
        raise IwloraError("the matrices in common have sensitivity 0 in one of the measurements")
    shares = {a.name: (a.value / totals[0], b.value / totals[1]) for a, b in pairs}
    left, right = zip(*shares.values(), strict=True)
    if len(set(left)) == 1 or len(set(right)) == 1:
        raise IwloraError("all values of one of the measurements are equal, so they have no order")
    moved = 0.5 * math.fsum(abs(a - b) for a, b in shares.values())
    return Agreement(shares, float(np.corrcoef(_ranks(left), _ranks(right))[0, 1]), moved)


Pair = tuple[SiteSensitivity, SiteSensitivity]


def _by_name(first: Sensitivity, second: Sensitivity) -> Iterator[Pair]:
    others = {site.name: site for site in second.sites}
    return ((site, others[site.name]) for site in first.sites if site.name in others)


def _by_depth(first: Sensitivity, second: Sensitivity) -> Iterator[Pair]:
    deepest = [max(site.depth for site in measured.sites) for measured in (first, second)]
    others = {(site.kind, site.depth): site for site in second.sites}
    for site in first.sites:
        depth = round(site.depth * deepest[1] / deepest[0]) if deepest[0] else 0
        if (site.kind, depth) in others:
            yield site, others[site.kind, depth]


def _ranks(values: Sequence[float]) -> Any:
    """The rank of each value; equal values share the mean of their ranks."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[position]
