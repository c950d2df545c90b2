"""Components of a design: groups, strategies, allocation and tuned; and published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from iwlora.errors import IwloraError
from iwlora.methods.grouped.division import Allocation, layer_weights
from iwlora.methods.grouped.grouping import MOST_GROUPS, Pattern, group_sizes
from iwlora.methods.grouped.parts import Layer, combination_problems

Groups = Pattern | tuple[int, ...]
Strategies = tuple[tuple[str, ...], ...]
Tuned = Literal["all"] | tuple[int, ...]
COMPONENTS = ("groups", "strategies", "allocation", "tuned")


@dataclass(frozen=True)
class Preset:
    """The groups and strategies of a published design."""

    groups: Pattern
    strategies: Strategies


PRESETS: Mapping[str, Preset] = {
    # Chen et al. 2023, arXiv:2301.01821: what their search finds for T5-base.
    "s4": Preset(
        "spindle",
        (
            ("pfeiffer", "lora"),
            ("pfeiffer", "prefix"),
            ("pfeiffer", "prefix", "bitfit"),
            ("prefix", "bitfit", "lora"),
        ),
    )
}


@dataclass(frozen=True)
class Assigned:
    """A tuned layer, the names of its parts, and what its parameters are in proportion to."""

    layer: Layer
    parts: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class Components:
    """What decides which layers have which parts, and how many parameters each layer gets.

    Args:
        groups: how many layers each group has, or the pattern of these numbers.
        strategies: the parts of each group's layers.
        allocation: how a layer's parameters depend on its place.
        tuned: the numbers of the groups that have parts, from 1.
    """

    groups: Groups
    strategies: Strategies
    allocation: Allocation | tuple[float, ...] = "uniform"
    tuned: Tuned = "all"

    def problems(self) -> Iterator[str]:
        """What is impossible for every model, one message for each fault."""
        count = len(self.strategies)
        for number, names in enumerate(self.strategies, start=1):
            for problem in combination_problems(names):
                yield f"group {number}: {problem}"
        if not 1 <= count <= MOST_GROUPS:
            yield f"{count} groups have strategies; accepted are 1 to {MOST_GROUPS}"
        lengths = (("groups", self.groups, "counts"), ("allocation", self.allocation, "weights"))
        for field, given, what in lengths:
            if not isinstance(given, str) and len(given) != count:
                yield (
                    f"{field} has {len(given)} {what}, and there are strategies for {count} "
                    "groups; give one for each"
                )
        if self.tuned != "all":
            wrong = [n for n in self.tuned if n > count or self.tuned.count(n) > 1]
            if wrong or not self.tuned:
                yield (
                    f"tuned={list(self.tuned)} was given; accepted are 'all', and different "
                    f"numbers from 1 to {count}"
                )

    @property
    def tuned_strategies(self) -> Strategies:
        """The strategies of the groups that are tuned."""
        return tuple(
            names
            for number, names in enumerate(self.strategies, start=1)
            if self.tuned == "all" or number in self.tuned
        )

    def assigned(self, layers: Sequence[Layer]) -> tuple[list[Assigned], list[str]]:
        """The tuned layers with their parts; each stack of layers is grouped separately.

        Returns:
            These layers, and why the layers of some stacks do not divide into the groups. The
            layers of such a stack have all parts, so that the parts can be checked too.
        """
        tuned, problems = list[Assigned](), list[str]()
        every_part = tuple(dict.fromkeys(name for names in self.tuned_strategies for name in names))
        for stack in dict.fromkeys(layer.stack for layer in layers):
            inside = [layer for layer in layers if layer.stack == stack]
            try:
                counts = self.counts(len(inside))
            except IwloraError as error:
                problems.append(f"{stack}: {error}")
                tuned += [Assigned(layer, every_part, 1.0) for layer in inside]
                continue
            numbers = [number for number, count in enumerate(counts) for _ in range(count)]
            weights = layer_weights(self.allocation, numbers)
            tuned += [
                Assigned(layer, self.strategies[number], weight)
                for layer, number, weight in zip(inside, numbers, weights, strict=True)
                if self.tuned == "all" or number + 1 in self.tuned
            ]
        return tuned, problems

    def counts(self, layers: int) -> Sequence[int]:
        """How many of so many layers each group has.

        Raises:
            IwloraError: they do not divide into these groups.
        """
        if isinstance(self.groups, str):
            return group_sizes(self.groups, layers, len(self.strategies))
        if sum(self.groups) != layers:
            raise IwloraError(
                f"groups={list(self.groups)} have {sum(self.groups)} layers, and there are "
                f"{layers}; give counts that add up to {layers}, or a pattern"
            )
        return self.groups
