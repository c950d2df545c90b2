"""By how much one set of predictions scores better than another, with an interval over rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GROUPS = 20
FEWEST_GROUPS = 5
"""With fewer groups there is no interval."""

Score = Callable[[Sequence[int]], float]
"""The score of some of the rows."""


@dataclass(frozen=True)
class JackknifedScore:
    """The score of all rows, and (G,) those without one of G groups of rows."""

    whole: float
    left_out: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Margin:
    """A difference of two scores with its 95% interval; without ends for too few groups."""

    value: float
    low: float | None
    high: float | None


def group_rows(columns: Sequence[Sequence[object]], groups: int = GROUPS) -> list[list[int]]:
    """Rows in groups of about equal size; rows with an equal value stay together.

    Of several columns the one with the fewest values counts, if it has at least ``groups``: rows
    about one passage depend on each other, rows below one heading need not.

    >>> group_rows([["p", "p", "q", "q"], ["a", "b", "c", "d"]], 2)
    [[0, 1], [2, 3]]
    """
    values = [len(set(column)) for column in columns]
    enough = [count for count in values if count >= groups] or [max(values)]
    column = columns[values.index(min(enough))]
    together: dict[object, list[int]] = {}
    for row, value in enumerate(column):
        together.setdefault(value, []).append(row)
    parts: list[list[int]] = [[] for _ in range(min(groups, len(together)))]
    sizes = [0] * len(parts)
    for rows in together.values():
        smallest = sizes.index(min(sizes))
        parts[smallest] += rows
        sizes[smallest] += len(rows)
    return [sorted(rows) for rows in parts]


def jackknifed(score: Score, groups: Sequence[Sequence[int]]) -> JackknifedScore:
    """The scores that a margin's interval needs.

    Of a metric that is the mean over rows, the scores without a group follow from those of the
    groups; any other one is computed again without each group.
    """
    every = [row for rows in groups for row in rows]
    whole = score(every)
    if len(groups) < FEWEST_GROUPS:
        return JackknifedScore(whole, np.empty(0))
    sizes = np.array([len(rows) for rows in groups])
    parts = np.array([score(rows) for rows in groups])
    if math.isclose(parts @ sizes / len(every), whole, rel_tol=1e-9, abs_tol=1e-12):
        return JackknifedScore(whole, (len(every) * whole - sizes * parts) / (len(every) - sizes))
    others = ([row for part in groups if part is not rows for row in part] for rows in groups)
    return JackknifedScore(whole, np.array([score(rows) for rows in others]))


def margin(first: JackknifedScore, second: JackknifedScore) -> Margin:
    """first - second, ± t(G - 1) · √((G - 1) / G · Σ (d_g - mean d)²).

    d_g is the difference of the scores without group g: the delete-a-group jackknife, which holds
    for any smooth metric.

    Source:
        Kott, "The delete-a-group jackknife", Journal of Official Statistics 17 (2001).
    """
    from scipy.special import stdtrit

    value = first.whole - second.whole
    differences = first.left_out - second.left_out
    count = len(differences)
    if not count:
        return Margin(value, None, None)
    error = math.sqrt(
        (count - 1) / count * float(np.square(differences - differences.mean()).sum())
    )
    half = float(stdtrit(count - 1, 0.975)) * error
    return Margin(value, value - half, value + half)
