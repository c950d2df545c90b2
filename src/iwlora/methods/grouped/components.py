"""Components of a design: groups, strategies, allocation and tuned; and published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from iwlora.errors import IwloraError, list_problems
from iwlora.methods.grouped.division import Allocation, layer_weights
from iwlora.methods.grouped.grouping import MOST_GROUPS, Pattern, group_sizes, is_tuned, satisfies
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


ACCEPTED: Mapping[str, str] = {
    "groups": f"{', '.join(get_args(Pattern))}, or how many layers each group has, such as "
    "[2, 4, 4, 2]",
    "allocation": f"{', '.join(get_args(Allocation))}, or a weight above 0 for each group, such as "
    "[1, 2, 2, 1]",
    "tuned": "all, or the numbers of groups from 1, such as [2, 3]",
    "strategies": "lists of parts, one for each group, such as [[lora, pfeiffer], [prefix]]",
}


def strategy_problems(strategies: Strategies) -> Iterator[str]:
    """Why these groups cannot be, whatever the other components are."""
    for number, names in enumerate(strategies, start=1):
        for problem in combination_problems(names):
            yield f"group {number}: {problem}"
    if len(strategies) > MOST_GROUPS:
        yield f"{len(strategies)} groups have strategies; accepted are 1 to {MOST_GROUPS}"


def raise_value_error(problems: Iterable[str]) -> None:
    """Raise one ``ValueError`` that lists the different problems, if there are any."""
    if different := list(dict.fromkeys(problems)):
        raise ValueError(list_problems(different))


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
        yield from strategy_problems(self.strategies)
        if not count:
            yield f"no group has strategies; accepted are 1 to {MOST_GROUPS} groups"
        lengths = (("groups", self.groups, "counts"), ("allocation", self.allocation, "weights"))
        for field, given, what in lengths:
            if not isinstance(given, str) and len(given) != count:
                groups = "1 group" if count == 1 else f"{count} groups"
                yield (
                    f"{field} has {len(given)} {what}, and there are strategies for {groups}; give "
                    "one for each"
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
            if is_tuned(self.tuned, number)
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
                if is_tuned(self.tuned, number + 1)
            ]
        return tuned, problems

    def notes(self, layers: Sequence[Layer]) -> Iterator[str]:
        """A remark on each depth that has no groups with the inequalities of the pattern."""
        if not isinstance(self.groups, str):
            return
        depths = Counter(layer.stack for layer in layers).values()
        for depth in dict.fromkeys(depths):
            counts = self.counts(depth)
            if not satisfies(self.groups, counts):
                yield (
                    f"groups={self.groups}: {depth} layers have no {len(counts)} groups with its "
                    f"inequalities; they have the nearest, {list(counts)}"
                )

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
