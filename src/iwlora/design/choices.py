"""The choices that a recipe gives, or its model allows, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from iwlora.design.draws import Designs
from iwlora.design.settings import DesignSettings
from iwlora.design.stages import label_of
from iwlora.errors import IwloraError
from iwlora.methods.grouped.grouping import group_sizes
from iwlora.methods.grouped.parts import STRATEGIES, combination_problems
from iwlora.methods.grouped.space import FIELDS, Space, default_space


def space_of(settings: DesignSettings, fixed: Mapping[str, Any], depths: Sequence[int]) -> Space:
    """The space of a search.

    Args:
        settings: The choices that are given replace those that the model allows.
        fixed: {component: value} of those that are not searched, which have this one choice.
        depths: The number of layers of each stack of the model.
    """
    default = default_space(settings.groups, settings.strategies, depths)
    chosen: dict[str, tuple[Any, ...]] = {}
    for component in FIELDS:
        given = getattr(settings.choices, component)
        chosen[component] = tuple(given) if given else getattr(default, component)
        if component in fixed:  # an assignment is one set for each group, which replaces the draw
            value = fixed[component]
            chosen[component] = tuple(value) if component == "assignment" else (value,)
    return Space(settings.groups, **chosen)


def parts_of(settings: DesignSettings) -> list[str]:
    """All parts that an assignment may have, in the order in which they are given."""
    sets = settings.choices.assignment or [tuple(settings.strategies)]
    return [*dict.fromkeys(name for names in sets for name in names)]


def choice_problems(
    space: Space, settings: DesignSettings, designs: Designs, wrong: Collection[str] = ()
) -> Iterator[str]:
    """What is wrong with the choices of all components, all of it.

    Args:
        space: What designs are drawn from.
        settings: With the choices that are given.
        designs: Of the model.
        wrong: The fields and components that are known to be wrong, and have their defaults.
    """
    depths, checked = designs.depths, {*FIELDS} - {*wrong}
    if settings.groups > min(depths):
        yield (
            f"design.groups={settings.groups}: the model has {min(depths)} layers in a stack; give "
            f"at most {min(depths)}"
        )
        checked.discard("grouping")
    searched = {*settings.order} & checked
    few = [
        component
        for component in settings.order
        if component in searched and len(getattr(space, component)) < 2
    ]
    if "strategies" in wrong and not settings.choices.assignment:
        few = [component for component in few if component != "assignment"]
    yield from (_too_few(component, space, settings, depths) for component in few)
    if "grouping" in checked:
        searches = "grouping" in settings.order
        field = "design.choices.grouping" if searches else f"method.{FIELDS['grouping']}"
        yield from _grouping_problems(space, depths, field)
    for value in space.allocation:
        if not isinstance(value, str) and len(value) != space.groups:
            yield (
                f"design.choices.allocation: {[*value]} was given; accepted are {space.groups} "
                "weights above 0, one for each group"
            )
    every_group = {*range(1, space.groups + 1)}
    for tuned in space.tuned:
        if tuned != "all" and (not tuned or {*tuned} - every_group or len(tuned) > len({*tuned})):
            yield (
                f"design.choices.tuned: {[*tuned]} was given; accepted are 'all', and different "
                f"numbers from 1 to {space.groups}"
            )
    for names in space.assignment:
        for problem in combination_problems(names):
            yield f"design.choices.assignment: {'+'.join(names) or '[]'}: {problem}"
    yield from _repeated("allocation", space.allocation, _proportions)
    yield from _repeated("tuned", space.tuned, lambda t: every_group if t == "all" else {*t})
    if "assignment" not in checked:
        return
    if "assignment" not in settings.order:
        field = f"method.{FIELDS['assignment']}"
    else:
        yield from _repeated("assignment", space.assignment, set)
        given = settings.choices.assignment
        field = "design.choices.assignment" if given else "design.strategies"
    for name in dict.fromkeys(name for names in space.assignment for name in names):
        if name in STRATEGIES and (why := designs.unsupported(name)):
            yield f"{field}: {why}"


def _repeated(
    component: str, values: Sequence[Any], meaning: Callable[[Any], Any]
) -> Iterator[str]:
    """Choices that say the same in other words."""
    known: list[tuple[Any, Any]] = []
    for value in values:
        same = [label_of(other) for other, what in known if what == meaning(value)]
        if same:
            yield (
                f"design.choices.{component}: {same[0]} and {label_of(value)} are the same choice; "
                "leave one out"
            )
        known.append((value, meaning(value)))


def _proportions(allocation: Any) -> Any:
    """An allocation by its weights, of which only the proportions matter."""
    if isinstance(allocation, str):
        return allocation
    shares = [round(weight / sum(allocation), 5) for weight in allocation]
    return "uniform" if len({*shares}) == 1 else shares


def _too_few(component: str, space: Space, settings: DesignSettings, depths: Sequence[int]) -> str:
    """Why a stage has fewer than two choices, and what to do."""
    choices = ", ".join(label_of(value) for value in getattr(space, component)) or "none"
    reason = "the model allows"
    if component == "grouping":
        reason = f"{' and '.join(map(str, depths))} layers in {space.groups} groups allow"
    elif component == "assignment":
        reason = f"design.strategies={settings.strategies} allows"
    return (
        f"design.choices.{component}: a stage needs at least two choices, and {reason} {choices}; "
        f"give others, or take {component} out of design.order and set method.{FIELDS[component]}"
    )


def _grouping_problems(space: Space, depths: Sequence[int], field: str) -> Iterator[str]:
    known: dict[tuple[tuple[int, ...], ...], str] = {}
    for value in space.grouping:
        name = label_of(value)
        try:
            counts = tuple(_counts(value, depth, space.groups) for depth in depths)
        except IwloraError as error:
            yield f"{field}: {error}"
            continue
        if counts in known:
            yield (
                f"{field}: {known[counts]} and {name} give the same counts, "
                f"{', '.join(str([*each]) for each in counts)}; leave one out"
            )
        known.setdefault(counts, name)


def _counts(value: Any, depth: int, groups: int) -> tuple[int, ...]:
    if isinstance(value, str):
        return group_sizes(value, depth, groups)  # type: ignore[arg-type]
    if len(value) != groups or sum(value) != depth:
        raise IwloraError(
            f"{[*value]} was given; accepted are {groups} counts that add up to {depth}"
        )
    return tuple(value)
