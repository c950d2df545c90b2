"""The choices that a recipe gives, or its model allows, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    Raises:
        IwloraError: There are more groups than layers.
    """
    if settings.groups > min(depths):
        raise IwloraError(
            f"design.groups={settings.groups}: the model has {min(depths)} layers in a stack; give "
            f"at most {min(depths)}"
        )
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


def choice_problems(space: Space, settings: DesignSettings, designs: Designs) -> Iterator[str]:
    """What is wrong with the choices of the components that are searched, all of it."""
    depths = designs.depths
    for component in settings.order:
        if len(getattr(space, component)) < 2:
            yield _too_few(component, space, settings, depths)
    if "grouping" in settings.order:
        yield from _grouping_problems(space, depths)
    for value in space.allocation:
        if not isinstance(value, str) and (len(value) != space.groups or min(value) <= 0):
            yield (
                f"design.choices.allocation: {[*value]} was given; accepted are {space.groups} "
                "weights above 0, one for each group"
            )
    for tuned in space.tuned:
        if tuned != "all" and (not tuned or {*tuned} - {*range(1, space.groups + 1)}):
            yield (
                f"design.choices.tuned: {[*tuned]} was given; accepted are 'all', and numbers from "
                f"1 to {space.groups}"
            )
    for names in space.assignment:
        for problem in combination_problems(names):
            yield f"design.choices.assignment: {'+'.join(names) or '[]'}: {problem}"
    if "assignment" not in settings.order:
        field = "method.strategies"
    else:
        given = settings.choices.assignment
        field = "design.choices.assignment" if given else "design.strategies"
    for name in dict.fromkeys(name for names in space.assignment for name in names):
        if name in STRATEGIES and (why := designs.unsupported(name)):
            yield f"{field}: {why}"


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


def _grouping_problems(space: Space, depths: Sequence[int]) -> Iterator[str]:
    known: dict[tuple[tuple[int, ...], ...], str] = {}
    for value in space.grouping:
        name = label_of(value)
        try:
            counts = tuple(_counts(value, depth, space.groups) for depth in depths)
        except IwloraError as error:
            yield f"design.choices.grouping: {error}"
            continue
        if counts in known:
            yield (
                f"design.choices.grouping: {known[counts]} and {name} give the same counts, "
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
