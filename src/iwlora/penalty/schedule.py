"""How the strength of the penalty changes during training: a factor of α for each step."""

from __future__ import annotations

import math
from collections.abc import Callable

from iwlora.errors import IwloraError, unknown

Schedule = Callable[[int], float]


def constant(_step: int) -> float:
    """1 at every step."""
    return 1.0


def warmup(steps: int) -> Schedule:
    """Linear from 0 at step 0 to 1 at ``steps``, then constant.

    >>> [warmup(4)(step) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    return lambda step: min(step / steps, 1.0) if steps else 1.0


def cosine(total: int, warmup_steps: int = 0) -> Schedule:
    """:func:`warmup`, then half a cosine from 1 at ``warmup_steps`` to 0 at ``total``.

    >>> [round(cosine(10, warmup_steps=2)(step), 3) for step in (0, 1, 2, 6, 10, 11)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    rise, length = warmup(warmup_steps), max(total - warmup_steps, 1)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return rise(step)
        return 0.5 + 0.5 * math.cos(math.pi * min((step - warmup_steps) / length, 1.0))

    return factor


SCHEDULES = ("constant", "warmup", "cosine")


def named_schedule(name: str, total: int, warmup_part: float = 0.0) -> Schedule:
    """The schedule with this name.

    Args:
        name: ``constant``, ``warmup`` or ``cosine``.
        total: the number of training steps.
        warmup_part: the part of all steps in which the factor rises, from 0 to 1.

    Raises:
        IwloraError: the name is unknown, or the part is not in [0, 1].

    Example:
        >>> named_schedule("warmup", total=100, warmup_part=0.1)(5)
        0.5
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if not 0 <= warmup_part <= 1:
        raise IwloraError(
            f"warmup={warmup_part} was given; accepted is a part of training from 0 to 1"
        )
    steps = math.ceil(warmup_part * total)
    return {"constant": constant, "warmup": warmup(steps), "cosine": cosine(total, steps)}[name]
