"""The held-out loss as a smooth curve over the learning rate, from trials on common draws.

A draw is one seed with everything that it decides: rows, order, initialization. All learning rates
of a draw share these, so the draw moves all of their losses together; the functions below remove
that shift and compare within draws. A learning rate without a loss in any draw cannot win: it
diverged, say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Array = npt.NDArray[np.float64]

BANDWIDTH = 1.1
"""Decades. Losses at learning rates further than this from the best one tell little about it."""
FLAT = 1e-9
"""Loss per squared decade. A smaller curvature is rounding."""
DIGITS = 2
"""Significant digits of a learning rate between the tried ones: more would be noise."""


@dataclass(frozen=True)
class Optimum:
    """The learning rate that a search chooses.

    The best one lies in [low, high] with a confidence of 95%; None where that is not known, as
    with a single draw, which does not show how much draws disagree. ``edge`` is "smallest" or
    "largest" if it is the last one tried on that side, so that the best may lie outside.
    """

    learning_rate: float
    low: float | None
    high: float | None
    edge: str | None


def curve_minimum(learning_rates: Sequence[float], losses: Array) -> Optimum:
    """The learning rate at which a smooth curve of the loss is lowest.

    With x = log10(learning rate), loss of draw i = a_i + b · x + c · x², by least squares. The
    points are weighted by (1 - (|x - x_best| / h)³)³ around the learning rate with the lowest mean,
    where h is ``BANDWIDTH`` or a little more than the distance of the third nearest. The minimum is
    -b / 2c; its interval holds all x at which the slope b + 2 · c · x does not differ from 0 by a t
    test, whose variance comes from the disagreement of draws (Fieller). Where the curve has no
    minimum, the best of the tried learning rates takes its place, with all of them as the interval.

    Args:
        learning_rates: (learning rates,), ascending.
        losses: (draws, learning rates); NaN where there is no trial. A learning rate that is NaN
            in all draws cannot win, and the minimum is not sought beyond it.

    Raises:
        ValueError: No learning rate has a loss.

    Example:
        >>> rates = [1e-4, 1e-3, 1e-2]
        >>> curve_minimum(rates, np.array([[0.5, 0.3, 0.5]])).learning_rate
        0.001
        >>> curve_minimum(rates, np.array([[0.5, 0.3, 0.4]])).learning_rate
        0.0015

    Source:
        Weights: W. S. Cleveland, Robust locally weighted regression, JASA 74 (1979). Interval:
        E. C. Fieller, Some problems in interval estimation, JRSS B 16 (1954).
    """
    x = np.log10(np.asarray(learning_rates, dtype=float))
    known = [bool(column.any()) for column in np.isfinite(losses).T]
    if not any(known):
        raise ValueError("no learning rate has a loss")
    means = np.where(known, learning_rate_effects(losses), math.inf).round(12)
    best = int(means.argmin())
    first, last = _neighbors_with_losses(known, best)
    around = np.arange(first, last + 1)
    distance = np.abs(x[around] - x[best])
    width = max(BANDWIDTH, 1.1 * float(np.sort(distance)[:3][-1]))
    local = around[distance < width]
    noise = _noise(losses[:, local])
    chosen = float(x[best])
    interval = [float(x[first]), float(x[last])]
    if len(local) > 2:
        slope, curvature, covariance = _parabola(x[local] - x[best], losses[:, local], width)
        if curvature > FLAT:
            chosen = float(np.clip(x[best] - slope / (2 * curvature), x[first], x[last]))
            fine = np.linspace(x[first], x[last], 1001)
            by = np.stack([np.ones_like(fine), 2 * (fine - x[best])])
            error = np.sqrt(np.einsum("ki,kl,li->i", by, covariance, by))
            variance, df = noise or (0.0, 1)
            limit = stdtrit(df, 0.975) * math.sqrt(variance) * error
            interval = fine[np.abs([slope, curvature] @ by) <= limit].tolist()
    tried = learning_rates[first : last + 1]
    low, high = (_rounded(end([chosen, *interval]), tried) for end in (min, max))
    edge = None
    for end, name in ((0, "smallest"), (len(x) - 1, "largest")):
        if best == end or chosen == x[end]:
            edge = name
    found = _rounded(chosen, tried)
    return Optimum(found, low if noise else None, high if noise else None, edge)


def clearly_worse(losses: Array, error: float = 0.05) -> npt.NDArray[np.bool_]:
    """Which learning rates are worse than the best one by a paired test on the same draws.

    The worst is tested first: its mean difference from the best one against the larger of its own
    variance over the draws and that of all learning rates together, by a one-sided t test at
    ``error`` divided by the number of learning rates that are compared. If it is worse, it is left
    out and the next one is tested.

    Args:
        losses: (draws, learning rates) without NaN.
        error: The probability of leaving out a learning rate that is as good as the best one.

    Returns:
        (learning rates,); nothing is clearly worse after a single draw.

    Example:
        >>> clearly_worse(np.array([[0.5, 0.3, 0.31], [0.6, 0.4, 0.39]])).tolist()
        [True, False, False]
    """
    draws, count = losses.shape
    worse = np.zeros(count, dtype=bool)
    while draws > 1 and (~worse).sum() > 1:
        rest = np.flatnonzero(~worse)
        means = losses[:, rest].mean(0)
        worst = rest[means.argmax()]
        differences = losses[:, worst] - losses[:, rest[means.argmin()]]
        pooled, df = _noise(losses[:, rest]) or (0.0, 1)
        variance = max(2 * pooled, float(differences.var(ddof=1)))
        mean = float(differences.mean())
        t = mean / math.sqrt(variance / draws) if variance else math.inf * np.sign(mean)
        if not mean or 1 - stdtr(df, t) > error / (len(rest) - 1):
            break
        worse[worst] = True
    return worse


def _two_way(losses: Array) -> tuple[Array, Array, Array]:
    """Loss = draw + learning rate, by least squares: (design, known losses, coefficients)."""
    draws, rates = np.nonzero(np.isfinite(losses))
    design = np.hstack([np.eye(losses.shape[0])[draws], np.eye(losses.shape[1])[rates]])
    values = losses[draws, rates]
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0].astype(np.float64)
    return design, values, coefficients


def learning_rate_effects(losses: Array) -> Array:
    """The loss of each learning rate without the shifts of its draws, up to a constant.

    Args:
        losses: (draws, learning rates); NaN where there is no trial.

    Example:
        >>> effects = learning_rate_effects(np.array([[0.4, 0.5], [math.nan, 0.9]]))
        >>> round(float(effects[1] - effects[0]), 6)
        0.1
    """
    return _two_way(losses)[2][losses.shape[0] :]


def _noise(losses: Array) -> tuple[float, int] | None:
    """(variance of a loss after its draw and learning rate, degrees of freedom); None for 0."""
    design, values, coefficients = _two_way(losses)
    df = len(values) - int(np.linalg.matrix_rank(design))
    return (float(((values - design @ coefficients) ** 2).sum() / df), df) if df else None


def _neighbors_with_losses(known: Sequence[bool], best: int) -> tuple[int, int]:
    """The first and the last of the learning rates around the best one that all have losses."""
    first, last = best, best
    while first > 0 and known[first - 1]:
        first -= 1
    while last < len(known) - 1 and known[last + 1]:
        last += 1
    return first, last


def _parabola(x: Array, losses: Array, width: float) -> tuple[float, float, Array]:
    """(b, c) around x = 0, and their covariance for a noise of variance 1."""
    draws, rates = np.nonzero(np.isfinite(losses))
    root = (1 - (np.abs(x[rates]) / width) ** 3) ** 1.5  # of the weights
    design = np.hstack([np.eye(losses.shape[0])[draws], np.stack([x, x**2], 1)[rates]])
    solution = (np.linalg.pinv(design * root[:, None]) * root)[-2:]
    slope, curvature = solution @ losses[draws, rates]
    return float(slope), float(curvature), solution @ solution.T


def _rounded(x: float, tried: Sequence[float]) -> float:
    """10^x: the tried learning rate if it is one, else ``DIGITS`` digits within the tried ones."""
    lr = 10**x
    for one in tried:
        if math.isclose(one, lr, rel_tol=1e-9):
            return one
    return min(max(float(f"{lr:.{DIGITS - 1}e}"), tried[0]), tried[-1])
