"""Random designs: what a model's designs are drawn from, and the first one that is possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, get_args

from iwlora.errors import IwloraError
from iwlora.methods.grouped.design import CostOf
from iwlora.methods.grouped.grouping import Pattern
from iwlora.methods.grouped.parts import Layer
from iwlora.methods.grouped.space import Space, default_space

GROUPS = 4
PARTS = ("pfeiffer", "lora", "prefix", "bitfit")
MOST_DRAWS = 200

T = TypeVar("T")


@dataclass(frozen=True)
class RandomDesign(Generic[T]):
    """A design, and how many that were drawn before it were impossible."""

    design: T
    redrawn: int


def random_design(
    seed: int, space: Space, given: Mapping[str, Any], design: Callable[[Mapping[str, Any]], T]
) -> RandomDesign[T]:
    """Draw the components of a design until one is possible.

    Args:
        seed: of the draws, each of which has a generator of its own.
        space: what the components are drawn from.
        given: the components that are not drawn.
        design: makes a design of its components, or raises ``IwloraError``: it is impossible.

    Raises:
        IwloraError: none of 200 designs is possible.

    Example:
        >>> space = default_space(4, PARTS, depths=[6])
        >>> drawn = random_design(4, space, {"tuned": (1, 4)}, dict)
        >>> drawn.design["groups"], drawn.design["tuned"], drawn.redrawn
        ('bottleneck', (1, 4), 0)

    Source:
        Chen et al. 2023, arXiv:2301.01821, section 3: the space S0, which has four groups and the
        parts adapter, LoRA, prefix and BitFit.
    """
    import numpy as np

    refusal: IwloraError | None = None
    for redrawn in range(MOST_DRAWS):
        drawn = space.sample(np.random.default_rng([seed, redrawn]))
        try:
            return RandomDesign(design({**drawn, **given}), redrawn)
        except IwloraError as error:
            refusal = error
    raise IwloraError(
        f"none of {MOST_DRAWS} random designs fits the model and the budget; the last one: "
        f"{refusal}"
    )


def supported_space(
    layers: Sequence[Layer], cost: CostOf, groups: int | None = None, with_budget: bool = True
) -> Space:
    """What a random design of these layers is drawn from.

    Args:
        layers: the layers that can be tuned.
        cost: the cost of a part in a layer; it raises where the layer cannot have the part.
        groups: the number of groups; None: four, or the number of layers of the shallowest stack if
            that is lower.
        with_budget: whether there is a budget to divide; the allocation is uniform otherwise.

    Raises:
        IwloraError: the layers can have none of the parts.
    """
    depths = [*Counter(layer.stack for layer in layers).values()]
    parts, refusals = list[str](), list[str]()
    for name in PARTS:
        try:
            for layer in layers:
                cost(name, layer)
        except IwloraError as error:
            refusals.append(str(error))
        else:
            parts.append(name)
    if not parts:
        raise IwloraError(f"the layers can have no part of a random design: {refusals[0]}")
    space = default_space(groups or min(GROUPS, *depths), parts, depths)
    if not space.grouping:  # no counts have the inequalities of a pattern: those nearest to it
        near = tuple(pattern for pattern in get_args(Pattern) if pattern != "uniform")
        space = replace(space, grouping=near)
    return space if with_budget else replace(space, allocation=("uniform",))
