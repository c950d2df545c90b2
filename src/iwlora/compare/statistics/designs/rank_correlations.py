"""How well numbers that are known before training order designs: rank correlations over draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy.special import stdtrit

MIN_DRAWS = 6
"""The fewest draws that give an interval."""


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation ρ over runs, and its interval [low, high]; None: too few draws."""

    rho: float
    low: float | None
    high: float | None
    runs: int
    draws: int


@dataclass(frozen=True)
class ProxyRow:
    """How well a proxy orders the scores of designs.

    Args:
        name: that of the proxy.
        correlation: of the proxy with the scores.
        permuted_rho: the mean ρ of the same proxy from permuted importance; None without it.
        p_value: the chance that permuted importance has at least as large an |ρ|.
    """

    name: str
    correlation: RankCorrelation
    permuted_rho: float | None = None
    p_value: float | None = None


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, where equal values share their mean rank.

    0 where all values of one side are equal, because they order nothing.

    Example:
        >>> spearman([1, 2, 3, 4], [10, 20, 40, 30])
        0.8
    """
    return float(_correlations(_ranks(np.asarray([first], dtype=float)), _ranks([second])[0])[0])


def rank_correlation(
    proxy: Sequence[float],
    scores: Sequence[float],
    draws: Sequence[int] | None = None,
    confidence: float = 0.95,
) -> RankCorrelation:
    """Spearman's ρ of a proxy with the scores of runs, with an interval over draws.

    Runs of one draw share a seed and parts of their design, so they are not independent: the
    interval is the jackknife's over whole draws. With z = artanh ρ of all n draws, and z_(i)
    without draw i, the pseudo-values are n z - (n - 1) z_(i), and the interval is tanh of their
    mean ± t(n - 1) · sd / √n. A perfect order counts as half an exchange of two neighbors, so that
    z is finite.

    Args:
        proxy: a number for each run, known before it is trained.
        scores: those of the runs, larger is better.
        draws: the draw of each run; None: each run is one of its own.
        confidence: of the interval.

    Raises:
        ValueError: the lengths differ, there are fewer than three runs, or a number is not finite.

    Example:
        >>> found = rank_correlation([1, 2, 3, 4, 5, 6, 7], [2, 1, 6, 3, 7, 4, 5])
        >>> round(found.rho, 2), round(found.low, 2), round(found.high, 2)
        (0.57, -0.6, 0.96)

    Source:
        J. W. Tukey (1958), "Bias and confidence in not quite large samples"; the delete-one-group
        form in Shao and Tu, The Jackknife and Bootstrap (1995), section 2.
    """
    labels = np.arange(len(scores)) if draws is None else np.asarray(draws)
    if not len(proxy) == len(scores) == len(labels):
        raise ValueError(
            f"{len(proxy)} values, {len(scores)} scores and {len(labels)} draws were given"
        )
    x: Any = np.asarray(proxy, dtype=float)
    y: Any = np.asarray(scores, dtype=float)
    if len(y) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("at least three runs with finite numbers are needed")
    rho, different = spearman(x, y), np.unique(labels)
    n = len(different)
    if n < MIN_DRAWS:
        return RankCorrelation(rho, None, None, len(y), n)
    without = [_z(x[labels != draw], y[labels != draw]) for draw in different]
    pseudo = n * _z(x, y) - (n - 1) * np.asarray(without)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * pseudo.std(ddof=1) / math.sqrt(n)
    low, high = math.tanh(pseudo.mean() - half), math.tanh(pseudo.mean() + half)
    return RankCorrelation(rho, low, high, len(y), n)


def proxy_table(
    proxies: Mapping[str, Sequence[float]],
    scores: Sequence[float],
    draws: Sequence[int] | None = None,
    permuted: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> list[ProxyRow]:
    """A row for each proxy: does it order the designs, and does its importance do it?

    Args:
        proxies: {name: a number for each run}.
        scores: those of the runs, larger is better.
        draws: the draw of each run; None: each run is one of its own.
        permuted: {name of a proxy from importance: its numbers for each of m permutations of the
            importance among the layers}. If the importance of a layer says nothing about it, the
            measured one is a permutation like the others, so p = (1 + #{|ρ_perm| ≥ |ρ|}) / (1 + m)
            is valid for any number of runs.
    """
    y = _ranks([scores])[0]
    rows = []
    for name, values in proxies.items():
        found = rank_correlation(values, scores, draws)
        others = (permuted or {}).get(name)
        if not others:
            rows.append(ProxyRow(name, found))
            continue
        rhos = _correlations(_ranks(others), y)
        as_large = int((np.abs(rhos) >= abs(found.rho) - 1e-12).sum())
        p_value = (1 + as_large) / (1 + len(rhos))
        rows.append(ProxyRow(name, found, fmean(map(float, rhos)), p_value))
    return rows


def _z(x: Any, y: Any) -> float:
    """artanh ρ, where a perfect order counts as half an exchange of two neighbors."""
    most = 1 - 6 / (len(x) * (len(x) ** 2 - 1))
    return math.atanh(min(max(spearman(x, y), -most), most))


def _ranks(rows: Any) -> Any:
    """The ranks in each row; equal values share their mean rank."""
    from scipy.stats import rankdata  # whose import takes half a second

    return rankdata(np.asarray(rows, dtype=float), axis=1)


def _correlations(rows: Any, other: Any) -> Any:
    """Pearson's correlation of each row with another; 0 where one of the two is constant."""
    x = rows - rows.mean(axis=1, keepdims=True)
    y = other - other.mean()
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum())
    return np.divide(x @ y, scale, out=np.zeros(len(x)), where=scale > 0)
