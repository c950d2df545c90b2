"""What a run can afford of measuring in flight: how its first steps are read, and how many."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iwlora.sensitivity.estimators import COLUMNS
from iwlora.sites import Site

LIMIT = 0.02
"""The part of a run's operations that measuring in flight may add."""

# Layers are read in float32. Where the steps multiply in bfloat16, an operation of reading takes
# up to twice as long as one of a step, so half the limit is planned.
_PLANNED = LIMIT / 2
_FEWEST = 2  # one batch does not show its error
# After two steps A has moved towards the gradient, and the projection is not random.
_RANDOM_STEPS = 2
_FIRST_PART = 10  # a tenth of the passes is read at most: the penalty starts after them


def reading_share(sites: Sequence[Site], estimator: str) -> float:
    """The operations of reading one pass, divided by those of a training step on the same batch.

    At every token, a matrix costs d_in · d_out products in the forward pass, and as many in the
    backward pass if there are adapted matrices below it. Reading costs d_in · d_out products with
    ``exact``, and at most ``COLUMNS`` · (d_in + d_out) with ``sketch``. Attention, LoRA's own
    products, the head and layers that are not adapted are left out of the step, so the share is an
    upper bound.

    Args:
        sites: the adapted matrices.
        estimator: ``exact`` or ``sketch``.

    Returns:
        The share; it depends neither on the rows nor on the tokens of a batch.

    Example:
        >>> from torch import nn
        >>> sites = [Site(f"w{k}", nn.Linear(512, 512), "w", 512, 512, depth=k) for k in range(2)]
        >>> round(reading_share(sites, "exact"), 3), round(reading_share(sites, "sketch"), 3)
        (0.667, 0.167)
    """
    lowest = min(site.depth for site in sites)
    step = sum(site.size * (1 if site.depth == lowest else 2) for site in sites)
    return sum(_reading_products(site, estimator) for site in sites) / step


def plan_in_flight(
    sites: Sequence[Site], steps: int, passes_per_step: int, projects_at_random: bool
) -> tuple[str, int]:
    """The most exact estimator that fits :data:`LIMIT`, and the number of passes that it reads.

    ``exact``, if the limit allows two passes or more; else ``lora``, which reads the gradients that
    training computes anyway, in the first two steps; else ``sketch``.

    Args:
        sites: the adapted matrices.
        steps: the optimizer steps of the run.
        passes_per_step: the micro-batches of a step, times the processes.
        projects_at_random: whether ∂L/∂B is a random projection of ∂L/∂W, as ``lora`` needs.

    Returns:
        (the estimator, the largest number of batches).

    Example:
        >>> from torch import nn
        >>> sites = [Site(f"w{k}", nn.Linear(512, 512), "w", 512, 512, depth=k) for k in range(2)]
        >>> [plan_in_flight(sites, steps, 1, projects_at_random=True) for steps in (20, 200, 2000)]
        [('lora', 2), ('exact', 3), ('exact', 30)]
    """
    passes = steps * passes_per_step
    exact, sketch = (
        math.floor(_PLANNED * passes / reading_share(sites, estimator))
        for estimator in ("exact", "sketch")
    )
    if exact >= _FEWEST:
        return "exact", exact
    if projects_at_random:
        return "lora", min(steps, _RANDOM_STEPS) * passes_per_step
    return "sketch", max(1, min(sketch, passes // _FIRST_PART))


def _reading_products(site: Site, estimator: str) -> int:
    """For one token in each of the site's matrices."""
    of_autograd = site.parameter is not None or site.is_convolution  # it forms the gradient
    if estimator == "exact" or of_autograd or site.d_in <= COLUMNS:
        return site.size  # the sketch forms a small gradient too
    return COLUMNS * site.parameters_per_rank
