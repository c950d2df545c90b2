"""Effects of factors that many designs have or lack, from one score for each design."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from iwlora.compare.statistics.paired_tests import SIGNIFICANCE, holm

Array = npt.NDArray[np.float64]
_ROUNDING = 1e-12  # of factors, which are 0 or 1, or means of them


@dataclass(frozen=True)
class Effect:
    """What a factor adds to the score, at the mean of all others.

    Args:
        mean: The estimate, in the unit of the scores.
        low: The lower end of its interval, which holds for all factors together (Bonferroni).
        high: The upper end.
        p_value: Of "no effect", corrected by Holm for the number of factors.
    """

    mean: float
    low: float
    high: float
    p_value: float


def factor_effects(
    factors: npt.ArrayLike,
    scores: Sequence[float],
    error: float = SIGNIFICANCE,
    constants: int = 1,
) -> list[Effect | None]:
    """Least-squares effects: score = constant + Σ effect · factor + noise.

    b = (X'X)⁻¹ X'y, with the variance s² (X'X)⁻¹ and the t distribution of
    n - k - ``constants`` degrees of freedom.

    Args:
        factors: (designs, factors), 1 where a design has a factor and 0 where it lacks it.
        scores: One for each design.
        error: The probability that any interval misses its effect.
        constants: How many means were taken away from the scores, such as one of each stage.

    Returns:
        For each factor its effect; None where the designs cannot tell it from the others, because
        it never varies or always comes with another one.

    Raises:
        ValueError: There are too few designs to estimate the noise.

    Example:
        >>> has = [[0, 0], [0, 1], [1, 0], [1, 1]] * 2
        >>> scores = [1.0, 2.1, 1.0, 2.0, 1.1, 2.0, 1.1, 2.1]
        >>> [round(effect.mean, 2) for effect in factor_effects(has, scores)]
        [0.0, 1.0]

    Source:
        Montgomery, Design and Analysis of Experiments, chapter 10: regression on factors.
    """
    x = np.asarray(factors, dtype=float)
    y = np.asarray(scores, dtype=float)
    centered = x - x.mean(0)
    centered[np.abs(centered) < _ROUNDING] = 0.0
    estimable = _estimable(centered)
    rank = int(np.linalg.matrix_rank(centered)) if centered.size else 0
    degrees = len(y) - rank - constants
    if degrees < 1:
        raise ValueError(
            f"{len(y)} designs were given; the effects of {x.shape[1]} factors need "
            f"{rank + constants + 1}"
        )
    inverse = np.linalg.pinv(centered.T @ centered)
    coefficients = inverse @ (centered.T @ (y - y.mean()))
    residual = y - y.mean() - centered @ coefficients
    deviation = np.sqrt(float(residual @ residual) / degrees * np.diagonal(inverse).clip(0))
    known = [index for index, is_known in enumerate(estimable) if is_known]
    p_values = dict(
        zip(known, holm([_p(coefficients[k], deviation[k], degrees) for k in known]), strict=True)
    )
    t = float(stdtrit(degrees, 1 - error / (2 * max(len(known), 1))))
    effects: list[Effect | None] = [None] * x.shape[1]
    for k in known:
        mean, half = float(coefficients[k]), t * float(deviation[k])
        effects[k] = Effect(mean, mean - half, mean + half, p_values[k])
    return effects


def _estimable(centered: Array) -> list[bool]:
    """Whether each column is no combination of the others."""
    whole = np.linalg.matrix_rank(centered) if centered.size else 0
    return [
        bool(np.linalg.matrix_rank(np.delete(centered, k, axis=1)) < whole)
        for k in range(centered.shape[1])
    ]


def _p(mean: float, deviation: float, degrees: int) -> float:
    """Two-sided; without any noise an effect is certain."""
    if deviation == 0:
        return float(mean == 0)
    return 2 * float(stdtr(degrees, -abs(mean) / deviation))


def largest_sums(gains: Sequence[Sequence[float]]) -> Iterator[tuple[int, ...]]:
    """All choices of one item from each group, those with the largest sum of gains first.

    Best first: only the choices that were asked for, and those that may come next, are ever made.
    Of equal sums the items that stand first in their groups come first, as a stable sort has them.

    Args:
        gains: Of the items of each group.

    Yields:
        The index of the chosen item in each group.

    Example:
        >>> [*largest_sums([[0.0, 2.0], [0.5, 0.0]])]
        [(1, 0), (1, 1), (0, 0), (0, 1)]
    """
    ranked = [sorted(range(len(of)), key=lambda item, of=of: -of[item]) for of in gains]  # type: ignore[misc]

    def entry(ranks: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        chosen = zip(gains, ranked, ranks, strict=True)
        return -sum(of[items[rank]] for of, items, rank in chosen), ranks

    heap = [entry((0,) * len(gains))] if all(gains) else []
    while heap:
        _, ranks = heappop(heap)
        yield tuple(items[rank] for items, rank in zip(ranked, ranks, strict=True))
        # Each choice follows one other alone: the one whose last rank above 0 is lower by 1.
        last = max((group for group, rank in enumerate(ranks) if rank), default=0)
        for group in range(last, len(gains)):
            if ranks[group] + 1 < len(ranked[group]):
                heappush(heap, entry((*ranks[:group], ranks[group] + 1, *ranks[group + 1 :])))


@dataclass(frozen=True)
class MeanDifference:
    """The difference of two means of independent scores, and its interval."""

    mean: float
    low: float | None
    high: float | None


def independent_difference(
    one: Sequence[float], other: Sequence[float], error: float = SIGNIFICANCE
) -> MeanDifference:
    """``one`` minus ``other``, whose designs were drawn independently: Welch's t interval.

    Args:
        one: Scores.
        other: Scores.
        error: The probability that the interval misses the true difference.

    Returns:
        No interval with fewer than two scores on a side.

    Raises:
        ValueError: A side has no scores.

    Source:
        B. L. Welch, The generalization of Student's problem, Biometrika 34 (1947).
    """
    if not (one and other):
        raise ValueError("nothing to compare: no scores")
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    mean = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return MeanDifference(mean, None, None)
    of_a, of_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    variance = of_a + of_b
    if variance == 0:
        return MeanDifference(mean, mean, mean)
    degrees = variance**2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    half = float(stdtrit(degrees, 1 - error / 2)) * math.sqrt(variance)
    return MeanDifference(mean, mean - half, mean + half)
