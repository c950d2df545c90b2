"""How many parameters each layer gets, and the sizes of its parts that cost so many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from iwlora.errors import IwloraError

Allocation = Literal["uniform", "increasing", "decreasing", "importance"]
MOST_DIFFERENCE = 0.05
"""The accepted difference from a budget, as a part of it."""


@dataclass(frozen=True)
class Cost:
    """The number of parameters of a part: ``fixed`` + size · ``unit``, for sizes up to ``largest``.

    A part without a size, such as the biases of a layer, has ``unit`` 0.
    """

    fixed: int
    unit: int
    largest: int | None = None

    def of(self, size: int) -> int:
        """The number of parameters at a size."""
        return self.fixed + size * self.unit

    def nearest(self, parameters: float) -> int:
        """The size, at least 1, whose number of parameters is nearest."""
        size = max(1, round((parameters - self.fixed) / self.unit))
        return size if self.largest is None else min(size, self.largest)


def layer_weights(allocation: Allocation | Sequence[float], groups: Sequence[int]) -> list[float]:
    """What the parameters of each layer of a stack are in proportion to; their mean is 1.

    Args:
        allocation: ``uniform``: alike; ``increasing`` and ``decreasing``: in proportion to the
            layer's number, from 1 at the input, or at the output; or a number for each group,
            whose layers have it alike. ``importance`` is not known here.
        groups: the number of each layer's group, from 0.

    Example:
        >>> layer_weights("increasing", [0, 0, 1]), layer_weights([1, 4], [0, 0, 1])
        ([0.5, 1.0, 1.5], [0.5, 0.5, 2.0])
    """
    count = len(groups)
    if allocation == "increasing":
        raw = [float(k + 1) for k in range(count)]
    elif allocation == "decreasing":
        raw = [float(count - k) for k in range(count)]
    elif isinstance(allocation, str):
        raw = [1.0] * count
    else:
        raw = [float(allocation[group]) for group in groups]
    mean = sum(raw) / count
    return [value / mean for value in raw]


def divide(budget: int, layers: Sequence[tuple[float, Mapping[str, Cost]]]) -> list[dict[str, int]]:
    """Sizes of all parts, so that their parameters come to the budget.

    The parts without a size are deducted first. Each layer gets its share of the rest by its
    weight, and each of its parts the same. A part has the size whose parameters are nearest to its
    share; what it lacks or exceeds is carried to the next part, those with large units first.

    Args:
        budget: the number of parameters.
        layers: for each layer its weight, and the cost of each of its parts.

    Returns:
        For each layer {part: size}, with 0 for a part without a size.

    Raises:
        IwloraError: the result would differ from the budget by more than 5%.

    Example:
        >>> costs = {"bitfit": Cost(10, 0), "prefix": Cost(0, 4), "lora": Cost(0, 16)}
        >>> divide(110, [(1.0, costs)])
        [{'bitfit': 0, 'prefix': 13, 'lora': 3}]
    """
    without_size = sum(c.fixed for _, parts in layers for c in parts.values() if not c.unit)
    sized = [weight for weight, parts in layers if any(cost.unit for cost in parts.values())]
    left = budget - without_size
    if not sized or left <= 0:
        what = "all parts" if not sized else "the biases alone"
        if sized or abs(left) > MOST_DIFFERENCE * budget:
            raise IwloraError(
                f"a budget of {budget:,} parameters was given, and {what} have {without_size:,}; "
                "give another budget, or other strategies"
            )
    carried, result = 0.0, []
    for weight, parts in layers:
        share = left * weight / sum(sized) if sized else 0.0
        ordered = sorted((n for n in parts if parts[n].unit), key=lambda n: -parts[n].unit)
        sizes = dict.fromkeys(parts, 0)
        for name in ordered:
            wanted = share / len(ordered) + carried
            sizes[name] = parts[name].nearest(wanted)
            carried = wanted - parts[name].of(sizes[name])
        result.append(sizes)
    reached = total(layers, result)
    if abs(reached - budget) > MOST_DIFFERENCE * budget:
        raise IwloraError(
            f"a budget of {budget:,} parameters was given, and the nearest division of it has "
            f"{reached:,}, which differs by more than {MOST_DIFFERENCE:.0%}; give a budget near "
            "that, or fewer strategies, or fewer targets for LoRA"
        )
    return result


def total(
    layers: Sequence[tuple[float, Mapping[str, Cost]]], sizes: Sequence[Mapping[str, int]]
) -> int:
    """The number of parameters of all parts at these sizes."""
    return sum(
        cost.of(chosen[name])
        for (_, parts), chosen in zip(layers, sizes, strict=True)
        for name, cost in parts.items()
    )
