"""The draws of a stage: random designs that all of its choices complete within the budget."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from iwlora.design.stages import Stage
from iwlora.errors import IwloraError
from iwlora.methods.budget import backbone_parameters, parse_budget
from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.parts import layers_of
from iwlora.methods.grouped.random_design import random_design
from iwlora.methods.grouped.space import FIELDS, Space
from iwlora.results.run import SiteRank
from iwlora.sites import sites
from iwlora.training.model.backbone import meta_model
from iwlora.training.model.recipe_head import declare_modules
from iwlora.training.recipe import Recipe

Point = Mapping[str, Any]
"""A whole design, as options of ``grouped``."""


@dataclass(frozen=True)
class Draw:
    """{label of each choice: its design} of one draw, and how many designs were refused before."""

    points: Mapping[str, Point]
    redrawn: int


class Designs:
    """Designs of one model: makes their methods, and refuses those that it cannot have.

    Args:
        recipe: The shared settings, with a budget; its method has the options that all designs
            share.

    ``layers`` are those that designs can tune.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.method, Grouped)
        assert recipe.budget is not None
        self._recipe, self._shared = recipe, recipe.method
        model = meta_model(recipe)
        declare_modules(model, recipe)
        targets = sites(model, recipe.targets, recipe.exclude)
        recipe.method.check_convolutions(targets)
        self.layers = layers_of(sites(model), targets)
        self._budget = parse_budget(recipe.budget, backbone_parameters(model))
        self._cost = self._shared.costs(model)
        self._refusals: dict[str, str | None] = {}

    @property
    def depths(self) -> list[int]:
        """The number of layers of each stack."""
        return [*Counter(layer.stack for layer in self.layers).values()]

    def method(self, point: Point) -> Grouped:
        """The method of a design, with those shared options that its parts have."""
        shared, used = self._shared, {name for names in point["strategies"] for name in names}
        options = {name: value for name, value in shared.options.items() if name in used}
        factors = {name: value for name, value in shared.lr_factors.items() if name in used}
        return Grouped(part_size=shared.part_size, options=options, lr_factors=factors, **point)

    def refusal(self, point: Point) -> str | None:
        """Why the model cannot have a design within the budget; None if it can."""
        key = json.dumps(point, sort_keys=True)
        if key not in self._refusals:
            self._refusals[key] = None
            try:
                self.part_records(point)
            except IwloraError as error:
                self._refusals[key] = str(error)
        return self._refusals[key]

    def part_records(self, point: Point) -> tuple[SiteRank, ...]:
        """The parts of a design and their sizes; with importance as if all layers were alike.

        Raises:
            IwloraError: The model cannot have it within the budget.
        """
        method = self.method(point).with_budget(self._budget)
        design = method.design_of(self.layers, self._cost)
        return design.part_records(method.part_sizes(design))

    def unsupported(self, strategy: str) -> str | None:
        """Why the model cannot have a strategy in its layers; None if it can."""
        try:
            for layer in self.layers:
                self._cost(strategy, layer)
        except IwloraError as error:
            return str(error)
        return None

    def recipe(self, point: Point, **train: Any) -> Recipe:
        """The recipe of a run of a design."""
        changed = self._recipe.with_train(**train)
        return changed.model_copy(update={"method": self.method(point)})


@dataclass(frozen=True)
class DrawSettings:
    """What the draws of a stage depend on, beside the stage itself.

    Args:
        space: What designs are drawn from.
        fixed: {component, or :func:`strategies_key` of a group: what it is}.
        seed: Of the search.
        designs: Says which ones are refused.
    """

    space: Space
    fixed: Mapping[str, Any]
    seed: int
    designs: Designs


def draw_designs(stage: Stage, number: int, settings: DrawSettings) -> Draw:
    """The designs of a draw, which depends on the arguments alone.

    All components that are not fixed are drawn at random. In a race all choices complete the same
    design; with ``search: paper`` each has a design of its own. A design that is refused with any
    of the choices is drawn again.

    Args:
        stage: Its choices replace its component.
        number: Of the draw, from 0.
        settings: What else it depends on.

    Raises:
        IwloraError: No design that all choices complete was found.
    """
    own = stage.seed(settings.seed, number)
    together: list[tuple[int, Mapping[str, Any]]] = [(own, stage.choices)]
    if stage.search == "paper":
        # Seeds of draws are below this factor, so that no two choices share designs.
        together = [
            (index * 2**32 + own, {label: value})
            for index, (label, value) in enumerate(stage.choices.items(), start=1)
        ]
    points: dict[str, Point] = {}
    redrawn = 0
    for own_seed, choices in together:
        try:
            drawn = _complete(stage, choices, own_seed, settings)
        except IwloraError as error:
            raise IwloraError(f"{stage.name}: {error}") from None
        points |= drawn.points
        redrawn += drawn.redrawn
    return Draw(points, redrawn)


def possible_choices(stage: Stage, settings: DrawSettings) -> tuple[Stage, dict[str, str]]:
    """The stage with the choices that complete some random design, and {label: why} of the others.

    Args:
        stage: With all its choices.
        settings: As for :func:`draw_designs`.

    Raises:
        IwloraError: Not one of them completes any.
    """
    refused: dict[str, str] = {}
    for label, value in stage.choices.items():
        try:
            _complete(stage, {label: value}, stage.seed(settings.seed, 0), settings)
        except IwloraError as error:
            refused[label] = str(error)
    if len(refused) == len(stage.choices):
        why = f"{stage.name}: {next(iter(refused.values()))}"
        others = "; no other choice has a possible design either" if len(refused) > 1 else ""
        raise IwloraError(why + others)
    possible = {label: value for label, value in stage.choices.items() if label not in refused}
    return replace(stage, choices=possible), refused


def _complete(stage: Stage, choices: Mapping[str, Any], seed: int, settings: DrawSettings) -> Draw:
    """The first random design that all of these choices complete."""

    def completed(components: Point) -> Mapping[str, Point]:
        point = with_fixed(components, settings.fixed)
        points = {label: stage.with_choice(point, value) for label, value in choices.items()}
        for label, each in points.items():
            if why := settings.designs.refusal(each):
                raise IwloraError(f"{label}: {why}")
        return points

    drawn = random_design(seed, settings.space, {}, completed)
    return Draw(drawn.design, drawn.redrawn)


def with_fixed(point: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A design with the components that are fixed, or the sets of single groups."""
    changed = dict(point)
    for name, value in fixed.items():
        if name in FIELDS:
            changed[FIELDS[name]] = value
    strategies = [*changed["strategies"]]
    for group in range(len(strategies)):
        strategies[group] = fixed.get(strategies_key(group), strategies[group])
    return {**changed, "strategies": tuple(strategies)}


def strategies_key(group: int) -> str:
    """The name of the set of strategies of a group among what is fixed."""
    return f"strategies-{group}"
