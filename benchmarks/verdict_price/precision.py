"""How precise a difference of two arms is: by which metric, and by how many rows.

All standard deviations are in units of a planted difference of one point, so that metrics compare:
where predictions are corrected on 1% of the rows, the accuracy rises by one point, and the mean
loss falls by 1% of the mean |log-odds| of the wrong rows.
"""

from __future__ import annotations

import math

import numpy as np

from verdict_price.bank import Array
from verdict_price.planted import Pairs


def sd_of_loss(pairs: Pairs) -> float:
    """√(mean d²) of the differences in the mean loss, over what one point changes the loss by."""
    losses = [np.logaddexp(0, -scores).mean(-1) for scores in (pairs.arm, pairs.baseline)]
    scores = np.stack([pairs.arm, pairs.baseline])
    one_point = 0.01 * np.abs(scores[scores <= 0]).mean()
    return float(np.sqrt(((losses[0] - losses[1]) ** 2).mean()) / one_point)


def sd_with_rows(pairs: Pairs, rows: int) -> float:
    """The standard deviation of a difference in points, if as many ``rows`` were scored.

    The variance is v + w / rows, where w is the mean variance of the rows' differences within a
    draw, and v what the recorded variance is above that, at least 0.
    """
    each = 100 * ((pairs.arm > 0).astype(float) - (pairs.baseline > 0))
    within = float(each.var(-1, ddof=1).mean())
    between = float((each.mean(-1) ** 2).mean()) - within / each.shape[-1]
    return math.sqrt(max(0.0, between) + within / rows)


def sd_of_rows(pairs: Pairs) -> float:
    """The standard deviation in points that the choice of rows gives the mean over all draws.

    All draws share their rows, so further draws do not lower it. With d the differences (draws,
    rows): √((var of the rows' means - mean of their variances / draws) / rows), at least 0.
    """
    each: Array = 100 * ((pairs.arm > 0).astype(float) - (pairs.baseline > 0))
    draws, rows = each.shape
    chance = float(each.var(0, ddof=1).mean()) / draws
    return math.sqrt(max(0.0, float(each.mean(0).var(ddof=1)) - chance) / rows)
