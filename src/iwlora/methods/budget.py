"""How many parameters a method trains, and which size gives how many."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from iwlora.errors import IwloraError
from iwlora.methods.base import Attached, Method
from iwlora.sites import Site

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def count(attached: Attached) -> dict[str, int]:
    """What a method trains, from the parameters themselves.

    ``adapter_parameters`` are those of the saved adapter, ``head_parameters`` the new task
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


def solve(method: Method, model: Any, sites: Sequence[Site], budget: str | float) -> int | None:
    """The size whose adapter parameters come nearest to the budget without passing it.

    Raises ``IwloraError`` when the smallest size is over the budget, and for a method whose
    size cannot be set.
    """
    wanted = parse(budget, sum(parameter.numel() for parameter in model.parameters()))
    if method.size_knob is None:
        raise IwloraError(f"{method.name} has no size to set; remove budget={budget}")
    fitting = [
        size for size in _accepted(method, sites) if method.parameters(model, sites, size) <= wanted
    ]
    if not fitting:
        least = method.parameters(model, sites, 1)
        raise IwloraError(
            f"budget={budget} is {wanted:,} parameters; {method.name} needs at least {least:,} "
            f"on these {len(sites)} sites"
        )
    return max(fitting)


def _accepted(method: Method, sites: Sequence[Site]) -> Iterator[int]:
    """The sizes that the method takes on these sites, from 1 on."""
    for size in range(1, min(min(site.d_in, site.d_out) for site in sites) + 1):
        try:
            method.check(sites, size)
        except IwloraError:
            return
        yield size
