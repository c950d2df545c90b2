"""The recipe of a search of designs: the settings of its runs, ``design`` and ``confirm``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iwlora.compare.statistics.sequential import fewest_draws
from iwlora.design.choices import choice_problems, parts_of, space_of
from iwlora.design.confirmation import confirm_settings, confirmation
from iwlora.design.draws import Designs, DrawSettings, draw_designs, possible_choices
from iwlora.design.settings import DesignSettings
from iwlora.design.stages import LR, Stage, stages_of
from iwlora.errors import IwloraError, raise_all
from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.parts import STRATEGIES
from iwlora.methods.grouped.space import FIELDS, Space
from iwlora.results.comparison.designs import DesignRecord
from iwlora.results.comparison.record import MAX_SEEDS, StoppingRule
from iwlora.training.overrides import override, read_yaml, validate
from iwlora.training.recipe import Recipe, build

_GROWING = ("draws", "models", "designs")


@dataclass(frozen=True)
class DesignRecipe:
    """A checked recipe.

    Args:
        run: The settings that all runs share; its method has the options that all designs share.
        settings: ``design``.
        space: What designs are drawn from.
        fixed: {component: its value}, of those that are not searched.
        designs: What makes and refuses the designs of the model.
        confirm: The settings of the confirmation; None: there is none.
    """

    run: Recipe
    settings: DesignSettings
    space: Space
    fixed: Mapping[str, Any]
    designs: Designs
    confirm: Mapping[str, Any] | None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in their order."""
        return tuple(stages_of(self.settings, self.space))

    def runs_of(self, stage: Stage) -> tuple[int, int]:
        """(the fewest, the most) runs of a stage; none where it has a single choice."""
        count = len(stage.choices)
        if count == 1 and stage.search != "screen":
            return 0, 0
        fewest, most = self.draws_of(stage)
        return count * fewest, count * most

    def draws_of(self, stage: Stage) -> tuple[int, int]:
        """(the fewest, the most) runs of each choice of a stage."""
        settings = self.settings
        if stage.search == "race":
            return settings.draws[0], settings.draws[-1]
        draws = {"grid": settings.draws[0], "paper": settings.models, "screen": settings.designs}
        return draws[stage.search], draws[stage.search]

    def draw_settings(self, fixed: Mapping[str, Any]) -> DrawSettings:
        """What draws depend on where so much of the design is known."""
        return DrawSettings(self.space, fixed, self.settings.seed, self.designs)

    @property
    def parts(self) -> list[str]:
        """All parts that some design may have."""
        return [*dict.fromkeys(part for parts in self.space.assignment for part in parts)]

    @property
    def paper_runs(self) -> int:
        """What independent designs would take: ``design.models`` of each choice.

        For the assignment the choices are all sets of strategies, in each group.
        """
        choices = sum(
            len(getattr(self.space, component))
            * (self.space.groups if component == "assignment" else 1)
            for component in self.settings.order
        )
        return choices * self.settings.models

    def record(self) -> DesignRecord:
        """What ``design.yaml`` holds."""
        settings = self.settings.model_dump(mode="json")
        space = {
            "run": self.run.settings(),
            "design": {key: value for key, value in settings.items() if key not in _GROWING},
            "choices": {stage.name: [*stage.choices] for stage in self.stages},
        }
        growing = {key: settings[key] for key in _GROWING}
        return DesignRecord(space=space, growing=growing, confirm=dict(self.confirm or {}))


def load_design(path: str, overrides: Sequence[str] = ()) -> DesignRecipe:
    """Read the recipe of a search; raises ``IwloraError`` with every problem."""
    return design_from(override(read_yaml(path), overrides))


def design_from(settings: Mapping[str, Any]) -> DesignRecipe:
    """The search that settings describe.

    Raises:
        IwloraError: Every problem of the recipe; or else every one of its choices with this model.
    """
    run, checked, problems = _checked(settings)
    confirm, of_confirm = confirm_settings(settings.get("confirm", {}), checked)
    problems += of_confirm
    if run is None or checked is None:
        raise IwloraError("\n".join(problems))
    designs, method = Designs(run), run.method
    assert isinstance(method, Grouped)
    fixed = {
        component: getattr(method.components, field)
        for component, field in FIELDS.items()
        if component not in checked.order
    }
    try:
        space = space_of(checked, fixed, designs.depths)
        problems += choice_problems(space, checked, designs)
    except IwloraError as error:
        problems += str(error).splitlines()
    raise_all(problems)
    design = DesignRecipe(run, checked, space, fixed, designs, confirm)
    problems += _undecidable_stages(design)
    try:
        confirmation(confirm, _some_design(design))
    except IwloraError as error:
        problems += str(error).splitlines()
    raise_all(problems)
    return design


def _checked(
    settings: Mapping[str, Any],
) -> tuple[Recipe | None, DesignSettings | None, list[str]]:
    """The settings of the runs, those of the search, and every problem of both."""
    given = {
        key: value
        for key, value in settings.items()
        if key not in ("design", "confirm") and value is not None
    }
    problems = [
        f"{key}: a search of designs decides it; remove it"
        for key in ("methods", "seeds", "stop", "label")
        if given.pop(key, None) is not None
    ]
    method = given.pop("method", "grouped")
    method = {"name": method} if isinstance(method, str) else method
    if not isinstance(method, Mapping) or method.get("name", "grouped") != "grouped":
        problems.append(
            f"method={settings['method']!r}: a search of designs is of the method grouped; leave "
            "it out, or give options that all designs share"
        )
        method = {}
    if "budget" not in given:
        problems.append("budget: missing; all designs have the same, such as budget=0.5%")
    for part, field in (("task", "holdout"), ("train", "lr"), ("train", "seed")):
        values = given.get(part)
        if isinstance(values, Mapping) and values.get(field) is not None:
            problems.append(f"{part}.{field}: design.{field} says it; remove it")
    checked, of_design = validate(DesignSettings, settings.get("design") or {}, "design")
    problems += of_design
    run = None
    try:
        method_settings = {"name": "grouped", **method}
        if checked is not None and "assignment" in checked.order:
            # Options of all parts that designs may have are accepted; unknown ones are told later.
            names = [name for name in parts_of(checked) if name in STRATEGIES]
            method_settings["strategies"] = [[name] for name in names or STRATEGIES]
        run = build({"budget": "0.5%", **given, "method": method_settings})
    except IwloraError as error:
        problems += str(error).splitlines()
    if checked is not None:
        problems += dict.fromkeys(_method_problems(checked, method))
    return run, checked, problems


def _method_problems(settings: DesignSettings, method: Mapping[str, Any]) -> Iterator[str]:
    """Options of the method that the search decides, and those that it would need."""
    for component in settings.order:
        for field in (FIELDS[component], "sizes"):
            if method.get(field) is not None:
                yield (
                    f"method.{field}: the search decides it; remove it, or take {component} out of "
                    "design.order"
                )
    if method.get("preset") == "random" or (
        method.get("preset") is not None and "assignment" in settings.order
    ):
        yield "method.preset: the search decides the components; remove it"
    elif "assignment" not in settings.order and method.get("preset") is None:
        sets = method.get("strategies")
        if not isinstance(sets, list) or len(sets) != settings.groups:
            yield (
                "design.order leaves out the assignment: give method.strategies, one set for each "
                f"of the {settings.groups} groups"
            )


def _undecidable_stages(design: DesignRecipe) -> Iterator[str]:
    """Races that could drop no choice with so few draws."""
    settings = design.settings
    rule = StoppingRule(difference=1.0, error=settings.error, max_seeds=MAX_SEEDS)
    for stage in design.stages:
        count = len(stage.choices)
        if stage.search != "race":
            continue
        needed = fewest_draws(rule, count * (count - 1) // 2)
        if needed > settings.draws[-1]:
            yield (
                f"design.draws={settings.draws}: with the {count} choices of {stage.name} and an "
                f"error of {settings.error:g} no choice can be dropped before {needed} draws; "
                "raise the last number"
            )


def _some_design(design: DesignRecipe) -> Recipe:
    """Any design with the settings of the search, to check its confirmation by."""
    stage = next(stage for stage in design.stages if stage.component != LR)
    settings = design.draw_settings(design.fixed)
    possible, _ = possible_choices(stage, settings)
    drawn = draw_designs(possible, 0, settings)
    return design.designs.recipe(next(iter(drawn.points.values())))
