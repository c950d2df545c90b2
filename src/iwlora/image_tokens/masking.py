"""Which tokens of an image are masked: in training, and from one step of decoding to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_RATIO, _PLACES = 1, 2  # they begin the seeds, so that ratios and places are independent


def masked_count(tokens: int, u: float) -> int:
    """How many tokens of a training image are masked: ⌈N cos(πu/2)⌉, at least 1.

    Args:
        tokens: N, of an image.
        u: In 0...1.

    Source:
        Chang et al. 2022, arXiv:2202.04200, section 3.2.

    Example:
        >>> masked_count(49, 0.0), masked_count(49, 0.5), masked_count(49, 0.999)
        (49, 35, 1)
    """
    return max(1, math.ceil(tokens * math.cos(math.pi * u / 2)))


def still_masked(tokens: int, unknown: int, step: int, steps: int) -> int:
    """How many tokens stay masked after a step of decoding: ⌊N cos(πt/2T)⌋, 1 to unknown - 1.

    Args:
        tokens: N, those that were masked in the beginning.
        unknown: Those that are masked before this step.
        step: t, from 1.
        steps: T.

    Source:
        Chang et al. 2022, arXiv:2202.04200, section 3.2, as their code rounds it.

    Example:
        >>> still_masked(49, 49, 1, 12), still_masked(49, 6, 11, 12)
        (48, 5)
    """
    planned = math.floor(tokens * math.cos(math.pi * step / (2 * steps)))
    return max(1, min(unknown - 1, planned))


def step_ratio(step: Sequence[int]) -> float:
    """u of all images of an optimizer step, uniform in 0...1.

    Args:
        step: The seed of the run, the epoch and the step in it. All micro-batches and processes of
            a step mask the same share of tokens.
    """
    return float(np.random.default_rng([_RATIO, *step]).uniform())


def masked_places(tokens: int, count: int, draw: Sequence[int]) -> npt.NDArray[np.int64]:
    """The places of the masked tokens of an image, drawn from a sequence of whole numbers."""
    return np.sort(np.random.default_rng([_PLACES, *draw]).permutation(tokens)[:count])
