"""A design: which layers of a model have which parts, and what each part costs there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from iwlora.errors import IwloraError, raise_all
from iwlora.methods.grouped.components import Assigned
from iwlora.methods.grouped.division import Cost
from iwlora.methods.grouped.parts import Layer
from iwlora.results.run import SiteRank

CostOf: TypeAlias = Callable[[str, Layer], Cost]


@dataclass(frozen=True)
class Design:
    """The layers of a model with their parts.

    Args:
        layers: those that are tuned, in the order of the model.
        weights: what the parameters of each are in proportion to.
        costs: the cost of each part of each layer.
        left_out: the optional parts that some layers cannot have.
    """

    layers: tuple[Layer, ...]
    weights: tuple[float, ...]
    costs: tuple[Mapping[str, Cost], ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        assigned: Iterable[Assigned],
        cost: CostOf,
        problems: Iterable[str] = (),
        optional: Collection[str] = (),
    ) -> Design:
        """The design of these layers, without sizes.

        Args:
            assigned: the layers with the names of their parts.
            cost: the cost of a part in a layer; it raises where the layer cannot have the part.
            problems: what is wrong already.
            optional: the parts that are left out where a layer cannot have them.

        Raises:
            IwloraError: all reasons why the model cannot have this design.
        """
        found: dict[tuple[str, str], str] = {}
        left_out: dict[str, None] = {}
        chosen: list[tuple[Layer, float, Mapping[str, Cost]]] = []
        for layer, names, weight in ((a.layer, a.parts, a.weight) for a in assigned):
            costs = {}
            for name in names:
                try:
                    costs[name] = cost(name, layer)
                except IwloraError as error:
                    if name in optional:
                        left_out[name] = None
                    else:
                        found.setdefault((name, layer.stack), str(error))
            if costs:
                chosen.append((layer, weight, costs))
        every_problem = [*problems, *found.values()]
        if not (chosen or every_problem):
            every_problem = ["no layer has a part; give sizes or strategies to some"]
        raise_all(every_problem)
        layers, weights, costs_of = zip(*chosen, strict=True)
        return cls(layers, weights, costs_of, tuple(left_out))

    @property
    def shares(self) -> list[tuple[float, Mapping[str, Cost]]]:
        """(weight, costs) of each layer."""
        return list(zip(self.weights, self.costs, strict=True))

    def check_sizes(self, sizes: Sequence[Mapping[str, int]]) -> None:
        """Raise ``IwloraError`` for sizes that a layer cannot have."""
        raise_all(
            [
                f"method.sizes has {name}={chosen[name]} in {layer.block}; accepted are 1 to "
                f"{cost.largest:,}"
                for layer, costs, chosen in zip(self.layers, self.costs, sizes, strict=True)
                for name, cost in costs.items()
                if cost.largest is not None and not 1 <= chosen[name] <= cost.largest
            ]
        )

    def part_records(self, sizes: Sequence[Mapping[str, int]]) -> tuple[SiteRank, ...]:
        """The record of each part of each layer, for the result of a run."""
        return tuple(
            SiteRank(
                name=layer.block,
                kind=f"decoder_{name}" if layer.is_decoder else name,
                depth=layer.sites[0].depth,
                rank=chosen[name] if cost.unit else None,
                parameters=cost.of(chosen[name]),
            )
            for layer, costs, chosen in zip(self.layers, self.costs, sizes, strict=True)
            for name, cost in costs.items()
        )

    def equal_sizes(self, size: int) -> list[dict[str, int]]:
        """{part: size} of each layer, where all parts have one size; 0 for biases.

        Raises:
            IwloraError: a layer cannot have a part of this size.
        """
        limits = [
            (cost.largest, name, layer.block)
            for layer, costs in zip(self.layers, self.costs, strict=True)
            for name, cost in costs.items()
            if cost.largest is not None
        ]
        if limits and min(limits)[0] < size:
            largest, name, block = min(limits)
            raise IwloraError(
                f"method.part_size={size} was given; accepted are 1 to {largest}, because of "
                f"{name} in {block}"
            )
        return [
            {name: size if cost.unit else 0 for name, cost in costs.items()} for costs in self.costs
        ]
