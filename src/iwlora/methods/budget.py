"""Budgets: how many parameters a method trains, and which size of a method fits a budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from iwlora.errors import IwloraError
from iwlora.head import backbone_names
from iwlora.methods.contract import Attached, Method
from iwlora.sites import Site

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def count_parameters(attached: Attached) -> dict[str, int]:
    """Count the parameters that a method trains.

    Returns:
        ``adapter_parameters`` that the trained method needs, ``head_parameters`` of the
        head (:mod:`iwlora.head`), and ``trainable_parameters``, all that train.

    Raises:
        IwloraError: the parameters with ``requires_grad`` are not those that the method declares.
    """
    declared = set(attached.trainable)
    training = {name for name, p in attached.model.named_parameters() if p.requires_grad}
    if declared != training:
        differences = sorted(declared ^ training)
        raise IwloraError(
            "the parameters that train are not those that the method declares; "
            f"{len(differences)} differ, the first is {differences[0]}"
        )

    def total(names: Sequence[str]) -> int:
        return sum(attached.model.get_parameter(name).numel() for name in names)

    return {
        "trainable_parameters": total(attached.trainable),
        "adapter_parameters": attached.count(),
        "head_parameters": total(attached.head),
    }


def parse_budget(budget: str | float, backbone: int, option: str = "budget") -> int:
    """The number of parameters in a budget.

    Args:
        budget: ``"1.33M"``, ``"300K"``, ``"0.5%"`` of the backbone's parameters, or a number.
        backbone: the number of parameters of the backbone.
        option: what the user gave, for the error message.

    Raises:
        IwloraError: the budget has another form, or is less than one parameter.

    Example:
        >>> parse_budget("0.5%", backbone=184_000_000), parse_budget("1.33M", backbone=1)
        (920000, 1330000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[KMB]?)\s*", str(budget), re.IGNORECASE)
    if match:
        number, unit = float(match[1]), match[2].upper()
        parameters = number / 100 * backbone if unit == "%" else number * _UNITS[unit]
        if parameters >= 1:
            return round(parameters)
    raise IwloraError(
        f"{option}={budget!r} was given; accepted are a percentage of the backbone's parameters "
        "such as 0.5%, or a number such as 1.33M or 300K"
    )


def backbone_parameters(model: Any) -> int:
    """The number of parameters of the pretrained model, without new modules."""
    return sum(model.get_parameter(name).numel() for name in backbone_names(model))


def fit_to_budget(method: Method, model: Any, sites: Sequence[Site], budget: str | float) -> Method:
    """The method with the size whose number of adapter parameters is nearest to the budget.

    The number may be below or above the budget. The size is found by bisection, because the
    number of parameters grows with the size. A method that divides budgets among its parts gets the
    number of parameters instead.

    Raises:
        IwloraError: the method has no size; the budget is nearer to 0 than to the smallest
            size; or it is beyond the largest size.

    Example:
        >>> from iwlora.methods import METHODS
        >>> from iwlora.methods.tiny_models import tiny_model
        >>> from iwlora.sites import sites
        >>> model = tiny_model("bert")
        >>> fit_to_budget(METHODS["lora"](), model, sites(model), 1700).size
        4
    """
    if not method.takes_budget:
        raise IwloraError(f"{method.name} has no size to set; remove budget={budget}")
    target = parse_budget(budget, backbone_parameters(model))
    if method.divides_budgets:
        divided = method.with_budget(target)
        divided.parameters(model, sites)  # refuses a budget that cannot be divided
        return divided

    def parameters(size: int) -> int:
        return method.sized(size).parameters(model, sites) if size else 0

    def refusal(size: int) -> IwloraError | None:
        try:
            method.sized(size).check(sites)
        except IwloraError as error:
            return error
        return None

    # Each unit of size has at least one parameter, so no size above the target can fit.
    below = _largest(
        lambda size: size <= target and refusal(size) is None and parameters(size) <= target
    )
    nearest = min(below, below + 1, key=lambda size: abs(parameters(size) - target))
    given = f"{budget:.0f}" if isinstance(budget, float) and budget.is_integer() else budget
    message = f"budget={given} is {target:,} parameters; {method.name}"
    refused = refusal(nearest or 1)
    if refused is not None and below == 0:
        raise refused
    if nearest == 0:
        raise IwloraError(f"{message} needs at least {parameters(1):,} on these {len(sites)} sites")
    if refused is not None:
        raise IwloraError(
            f"{message} has at most {parameters(below):,} on these {len(sites)} sites "
            f"({method.size_knob}={below}: {refused})"
        )
    return method.sized(nearest)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest size that fits, 0 if none does; all smaller sizes must fit too."""
    high = 1
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
