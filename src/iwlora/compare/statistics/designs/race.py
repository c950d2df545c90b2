"""A race of choices over common draws: which ones are dropped, on paired evidence alone.

In each draw all choices that are left share everything but the choice. After 8 draws, for example,
and again after 16, 32 and 64, a choice is dropped if another one is better. The evidence is that of
:mod:`iwlora.compare.statistics.sequential`, corrected by Holm for all pairs of choices: the
probability that any choice is dropped by one that is not better is at most ``error``, over all
pairs and looks together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean

import numpy as np

from iwlora.compare.statistics.paired_tests import holm
from iwlora.compare.statistics.sequential import half_width, p_difference
from iwlora.results.comparison.record import RaceRule

Scores = Mapping[str, Sequence[float | None]]
"""{choice: its scores in the order of the draws, as far as its runs have ended}; None: failed."""


@dataclass(frozen=True)
class Dropped:
    """Why a choice was dropped: after how many draws, by which better one, and the p-value."""

    draws: int
    by: str
    p_value: float


@dataclass(frozen=True)
class Race:
    """How a race stands.

    Args:
        left: The choices that are not dropped.
        draws: The number of draws that these need now.
        ended: Whether no further draws are needed.
        dropped: {choice: why}.
    """

    left: tuple[str, ...]
    draws: int
    ended: bool
    dropped: Mapping[str, Dropped] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether the race ended with more than one choice."""
        return self.ended and len(self.left) > 1


def race(scores: Scores, rule: RaceRule) -> Race:
    """Replay a race up to the first look at which a result is missing.

    What is dropped depends only on the results, not on the order in which they came. A draw in
    which a run failed says nothing about the pairs of this choice.

    Args:
        scores: Of all choices, higher ones better.
        rule: When choices are dropped.

    Example:
        >>> good, bad = [3.0, 2.0, 3.1, 2.0, 3.0, 2.1], [1.0, 0.1, 1.0, 0.2, 1.0, 0.0]
        >>> ended = race({"a": good, "b": bad}, RaceRule(draws=[6, 12]))
        >>> ended.left, ended.ended, ended.dropped["b"].by
        (('a',), True, 'a')
    """
    left, dropped = tuple(scores), dict[str, Dropped]()
    for draws in rule.draws:
        if any(len(scores[choice]) < draws for choice in left):
            return Race(left, draws, False, dropped)
        paths = pair_paths(scores, draws, dropped)
        p_values = holm(_p_values([*paths.values()]))
        for (one, other), p in zip(paths, p_values, strict=True):
            if p > rule.error:
                continue
            mean = fmean(paths[one, other])
            better, worse = (one, other) if mean > 0 else (other, one)
            if worse in left and (worse not in dropped or p < dropped[worse].p_value):
                dropped[worse] = Dropped(draws, better, p)
        left = tuple(choice for choice in left if choice not in dropped)
        if len(left) < 2:
            break
    return Race(left, draws, True, dropped)


def pair_paths(
    scores: Scores, draws: int, dropped: Mapping[str, Dropped] | None = None
) -> dict[tuple[str, str], list[float]]:
    """{pair of choices: differences in the draws, up to ``draws``, that both have}.

    A choice that was dropped has no draws after its last look.
    """
    last = {choice: found.draws for choice, found in (dropped or {}).items()}
    paths = {}
    for one, other in combinations(scores, 2):
        known = min(draws, last.get(one, draws), last.get(other, draws))
        pairs = zip(scores[one][:known], scores[other][:known], strict=True)
        paths[one, other] = [a - b for a, b in pairs if a is not None and b is not None]
    return paths


def _p_values(paths: Sequence[Sequence[float]]) -> list[float]:
    """Of each pair the smallest at all draws so far; 1 without any. Equal lengths are one array."""
    found = [1.0] * len(paths)
    for length in {len(path) for path in paths} - {0}:
        rows = [row for row, path in enumerate(paths) if len(path) == length]
        smallest = p_difference(np.array([paths[row] for row in rows], dtype=float)).min(-1)
        for row, p in zip(rows, smallest, strict=True):
            found[row] = float(p)
    return found


def leader(scores: Scores, left: Sequence[str], draws: int) -> str:
    """The choice with the best mean, of those that are left; one with failed runs comes last.

    Args:
        scores: Of all choices.
        left: The choices that are compared.
        draws: The number of draws that all of them have.
    """

    def standing(choice: str) -> tuple[float, float]:
        known = [score for score in scores[choice][:draws] if score is not None]
        return -scores[choice][:draws].count(None), fmean(known) if known else -math.inf

    return max(left, key=standing)


def simultaneous_interval(
    path: Sequence[float], rule: RaceRule, choices: int
) -> tuple[float, float] | None:
    """The interval of a mean paired difference that holds for all pairs and looks together.

    Returns:
        None after so few draws that there is no interval.
    """
    if len(path) < 2:
        return None
    error = rule.error / math.comb(choices, 2)
    half = float(half_width(np.asarray(path, dtype=float), error)[-1])
    mean = fmean(path)
    return (mean - half, mean + half) if math.isfinite(half) else None
