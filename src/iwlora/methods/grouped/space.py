"""The space that designs are drawn from: the choices of each of its four components."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from iwlora.errors import IwloraError
from iwlora.methods.grouped.components import Groups, Tuned
from iwlora.methods.grouped.division import Allocation
from iwlora.methods.grouped.grouping import Pattern, group_sizes, satisfies
from iwlora.methods.grouped.parts import combination_problems

if TYPE_CHECKING:
    import numpy as np

Strategy = tuple[str, ...]

FIELDS: Mapping[str, str] = {
    "grouping": "groups",
    "allocation": "allocation",
    "tuned": "tuned",
    "assignment": "strategies",
}
"""{component of a design: the option of ``grouped`` that has it}, in the order of the paper."""

ALLOCATIONS: tuple[Allocation, ...] = ("uniform", "increasing", "decreasing")


@dataclass(frozen=True)
class Space:
    """The choices of each component.

    Args:
        groups: how many groups the layers are divided into.
        grouping: patterns of the groups' sizes, or their counts.
        allocation: how parameters are divided over the layers.
        tuned: which groups have parts.
        assignment: the sets of strategies that a group can have.
    """

    groups: int
    grouping: tuple[Groups, ...]
    allocation: tuple[Allocation | tuple[float, ...], ...]
    tuned: tuple[Tuned, ...]
    assignment: tuple[Strategy, ...]

    def sample(self, generator: np.random.Generator) -> dict[str, Any]:
        """A design as options of ``grouped``: each component, and each group's set, uniformly.

        Example:
            >>> import numpy
            >>> space = Space(2, ("uniform",), ("uniform",), ("all",), (("lora",),))
            >>> space.sample(numpy.random.default_rng(0))["strategies"]
            (('lora',), ('lora',))
        """

        def one_of(choices: Sequence[Any]) -> Any:
            return choices[int(generator.integers(len(choices)))]

        return {
            "groups": one_of(self.grouping),
            "allocation": one_of(self.allocation),
            "tuned": one_of(self.tuned),
            "strategies": tuple(one_of(self.assignment) for _ in range(self.groups)),
        }


def default_groupings(depths: Sequence[int], groups: int) -> tuple[Pattern, ...]:
    """The patterns whose inequalities hold, and whose counts differ, in stacks of these depths.

    >>> default_groupings([12], 4)
    ('increasing', 'uniform', 'decreasing', 'spindle', 'bottleneck')
    >>> default_groupings([6], 4)
    ('spindle', 'bottleneck')
    """
    found: dict[tuple[tuple[int, ...], ...], Pattern] = {}
    for pattern in get_args(Pattern):
        try:
            counts = tuple(group_sizes(pattern, depth, groups) for depth in depths)
        except IwloraError:  # uniform groups are impossible at this depth
            continue
        if all(satisfies(pattern, sizes) for sizes in counts):
            found.setdefault(counts, pattern)
    return tuple(found.values())


def default_tuned(groups: int) -> tuple[Tuned, ...]:
    """All groups; all but the first or the last; the upper or the lower half.

    >>> default_tuned(4)
    ('all', (2, 3, 4), (1, 2, 3), (3, 4), (1, 2))
    """
    every = tuple(range(1, groups + 1))
    middle = groups // 2
    parts = (every[1:], every[:-1], every[middle:], every[:middle])
    return ("all", *dict.fromkeys(part for part in parts if part))


def combinations(strategies: Sequence[str]) -> tuple[Strategy, ...]:
    """All sets of these strategies that may share a layer, small ones first.

    >>> combinations(["pfeiffer", "lora"])
    (('pfeiffer',), ('lora',), ('pfeiffer', 'lora'))
    """
    sets = (
        chosen
        for size in range(1, len(strategies) + 1)
        for chosen in itertools.combinations(strategies, size)
    )
    return tuple(chosen for chosen in sets if not [*combination_problems(chosen)])


def default_space(groups: int, strategies: Sequence[str], depths: Sequence[int]) -> Space:
    """All choices of each component.

    Args:
        groups: how many groups the layers are divided into.
        strategies: what the model can have.
        depths: the number of layers of each stack.
    """
    return Space(
        groups,
        default_groupings(depths, groups),
        ALLOCATIONS,
        default_tuned(groups),
        combinations(strategies),
    )
