"""The search for a learning rate, which goes on where the best is at an end of those tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iwlora.compare.plan.search.rounds import beyond_grid

_MOST_ADDED = 4
RULE = f"up to {_MOST_ADDED} more, while the best is the smallest or the largest"
"""How learning rates are searched, for the record."""


def best(start: Sequence[float], loss: Callable[[float], float]) -> float:
    """The value with the smallest loss; while it is at an end, the next one beyond is tried too.

    Args:
        start: The first values.
        loss: Of a value.

    Example:
        >>> best([0.01, 0.1], lambda value: abs(value - 1))
        1.0
    """
    losses = {value: loss(value) for value in start}
    while 1 < len(losses) < len(start) + _MOST_ADDED:
        found = min(losses, key=lambda value: losses[value])
        if min(losses) < found < max(losses):
            break
        beyond = beyond_grid(losses, "largest" if found == max(losses) else "smallest")
        losses[beyond] = loss(beyond)
    return min(losses, key=lambda value: losses[value])
