"""How many parameters a method trains, and which size gives how many."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from iwlora.errors import IwloraError
from iwlora.methods.contract import Attached, Method
from iwlora.sites import Site, head_modules

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def count(attached: Attached) -> dict[str, int]:
    """What a method trains, from the parameters themselves.

    ``adapter_parameters`` are those that the method ends with, ``head_parameters`` the new task
    head's, ``trainable_parameters`` all that train. Raises ``IwloraError`` when the parameters
    with ``requires_grad`` are not exactly those that the method declares.
    """
    declared = set(attached.trainable)
    training = {name for name, p in attached.model.named_parameters() if p.requires_grad}
    if declared != training:
        strays = sorted(declared ^ training)
        raise IwloraError(
            f"the parameters that train are not those declared; {len(strays)} differ, "
            f"the first being {strays[0]}"
        )

    def total(names: Sequence[str]) -> int:
        return sum(attached.model.get_parameter(name).numel() for name in names)

    return {
        "trainable_parameters": total(attached.trainable),
        "adapter_parameters": attached.count(),
        "head_parameters": total(attached.head),
    }


def parse(budget: str | float, backbone: int) -> int:
    """Parameters in a budget: ``"1.33M"``, ``"0.5%"`` of the backbone's, or a plain number.

    >>> parse("0.5%", backbone=184_000_000), parse("1.33M", backbone=1)
    (920000, 1330000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[KMB]?)\s*", str(budget), re.IGNORECASE)
    if match:
        number, unit = float(match[1]), match[2].upper()
        parameters = number / 100 * backbone if unit == "%" else number * _UNITS[unit]
        if parameters >= 1:
            return round(parameters)
    raise IwloraError(
        f"budget={budget!r} was given; accepted are a part of the backbone's parameters such as "
        "0.5%, or a number such as 1.33M or 300K"
    )


def backbone_parameters(model: Any) -> int:
    """Parameters of the pretrained model, those of the new task head apart."""
    heads = head_modules(model)
    return sum(p.numel() for name, p in model.named_parameters() if name.split(".")[0] not in heads)


def solve(method: Method, model: Any, sites: Sequence[Site], budget: str | float) -> int:
    """The size whose adapter parameters come nearest to the budget, below or above it.

    Found by bisection, for counts grow with the size. Raises ``IwloraError`` for a budget that
    is nearer to nothing than to the smallest size or beyond the largest, and for a method whose
    size cannot be set.
    """
    if method.size_knob is None:
        raise IwloraError(f"{method.name} has no size to set; remove budget={budget}")
    wanted = parse(budget, backbone_parameters(model))

    def parameters(size: int) -> int:
        return method.parameters(model, sites, size) if size else 0

    def refusal(size: int) -> IwloraError | None:
        try:
            method.check(sites, size)
        except IwloraError as error:
            return error
        return None

    # A size has a parameter or more, so none within the budget is above it in number.
    below = _last(
        lambda size: size <= wanted and refusal(size) is None and parameters(size) <= wanted
    )
    nearest = min(below, below + 1, key=lambda size: abs(parameters(size) - wanted))
    told = f"budget={budget} is {wanted:,} parameters; {method.name}"
    refused = refusal(nearest or 1)
    if refused is not None and below == 0:
        raise refused
    if nearest == 0:
        raise IwloraError(f"{told} needs at least {parameters(1):,} on these {len(sites)} sites")
    if refused is not None:
        raise IwloraError(
            f"{told} has at most {parameters(below):,} on these {len(sites)} sites "
            f"({method.size_knob}={below}: {refused})"
        )
    return nearest


def _last(fits: Callable[[int], bool]) -> int:
    """The largest size that fits, 0 if none does: all up to it fit and none above."""
    high = 1
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
