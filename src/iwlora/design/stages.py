"""The stages of a search, in their order, with the choices of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from iwlora.design.settings import DesignSettings
from iwlora.methods.grouped.grouping import is_tuned
from iwlora.methods.grouped.space import FIELDS, Space
from iwlora.results.comparison.designs import SearchKind
from iwlora.results.layout import learning_rate_label

LR = "lr"
_SEEDS_OF_STAGE = 1000
_FIRST = 2
FIRST_SEED = _FIRST * _SEEDS_OF_STAGE
"""The smallest seed of a stage; a confirmation and its trials have the seeds below."""
_STAGES = 16  # more than there are, so that no two searches share seeds


@dataclass(frozen=True)
class Stage:
    """A component and its choices.

    Args:
        name: Of the stage, and the start of its folder's name.
        component: What is chosen.
        number: Decides its seeds; the same wherever the stage stands in the order.
        search: How it searches.
        choices: {label: value}.
        group: The index of the group whose strategies are chosen.
    """

    name: str
    component: str
    number: int
    search: SearchKind
    choices: Mapping[str, Any] = field(hash=False)
    group: int | None = None

    @property
    def count(self) -> int:
        """The number of choices; of a screen that of the sets that each group can have."""
        if self.search == "screen":
            (sets,) = self.choices.values()
            return len(sets)
        return len(self.choices)

    def has_no_choice(self, tuned: Any) -> bool:
        """Whether its group is not among the tuned ones: then all its choices are one design."""
        return self.group is not None and not is_tuned(tuned, self.group + 1)

    def seed(self, design_seed: int, draw: int) -> int:
        """The seed of the runs of a draw: of no other stage, and of no confirmation."""
        return (design_seed * _STAGES + self.number + _FIRST) * _SEEDS_OF_STAGE + draw

    def beyond(self, learning_rate: float) -> Stage:
        """A stage that tries one more learning rate, on the same draws."""
        label = learning_rate_label(learning_rate)
        return replace(self, name=label, choices={label: learning_rate})

    def with_choice(self, point: Mapping[str, Any], value: Any) -> dict[str, Any]:
        """A design with a choice of this stage."""
        if self.component == LR or self.search == "screen":
            return dict(point)
        if self.group is None:
            return {**point, FIELDS[self.component]: value}
        strategies = [*point["strategies"]]
        strategies[self.group] = value
        return {**point, "strategies": tuple(strategies)}


def stages_of(settings: DesignSettings, space: Space) -> Iterator[Stage]:
    """The stages: the learning rate, then the components in their order.

    The assignment has a stage for each group, or one factorial experiment.
    """
    numbers = {component: number for number, component in enumerate(FIELDS, start=1)}
    if rates := settings.learning_rates:
        choices = {learning_rate_label(rate): rate for rate in rates}
        yield Stage(LR, LR, 0, "grid", choices)
    kind: SearchKind = "paper" if settings.search == "paper" else "race"
    for component in settings.order:
        number = numbers[component]
        by_label = {label_of(value): value for value in getattr(space, component)}
        if component != "assignment":
            yield Stage(component, component, number, kind, by_label)
        elif settings.search == "screen":
            yield Stage(component, component, number, "screen", {"designs": space.assignment})
        else:
            for group in range(space.groups):
                name = f"{component}-{group + 1}"
                yield Stage(name, component, number + group, kind, by_label, group)


def label_of(value: Any) -> str:
    """A choice as the label of an arm.

    >>> label_of("spindle"), label_of((2, 4, 4, 2)), label_of(("pfeiffer", "lora"))
    ('spindle', '2-4-4-2', 'pfeiffer+lora')
    """
    if isinstance(value, str):
        return value
    joint = "+" if value and isinstance(value[0], str) else "-"
    items = [f"{item:g}" if isinstance(item, float) else str(item) for item in value]
    return joint.join(items) or "[]"
