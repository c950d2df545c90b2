"""The recipe of a search of designs: the settings of its runs, ``design`` and ``confirm``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iwlora.compare.statistics.sequential import fewest_draws
from iwlora.design.choices import choice_problems, parts_of, space_of
from iwlora.design.confirmation import confirm_settings, confirmation_problems
from iwlora.design.draws import Designs, DrawSettings, draw_designs, possible_choices
from iwlora.design.settings import WIDENED, DesignSettings, read_settings
from iwlora.design.stages import LR, Stage, stages_of
from iwlora.errors import IwloraError, raise_all, short_repr
from iwlora.methods.grouped.components import PRESETS
from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.parts import STRATEGIES
from iwlora.methods.grouped.space import FIELDS, Space
from iwlora.results.comparison.designs import DesignRecord, GrowingNumbers, SearchedSpace
from iwlora.results.comparison.record import MAX_SEEDS, StoppingRule
from iwlora.training.overrides import override, read_yaml
from iwlora.training.recipe import Recipe, build, build_method

_GROWING = ("draws", "models", "designs")
_OF_GROUPS = ("groups", "allocation", "tuned")
"""Options of ``grouped`` that say how many groups there are, or which."""
_OF_DESIGNS = ("order", "groups", "strategies", *FIELDS)
"""What decides which designs there are."""


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
        widened = WIDENED if stage.search == "grid" else 0
        return count * fewest, (count + widened) * most

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
        space = SearchedSpace(
            run=self.run.settings(),
            design={key: value for key, value in settings.items() if key not in _GROWING},
            choices={stage.name: [*stage.choices] for stage in self.stages},
        )
        growing = GrowingNumbers(**{key: settings[key] for key in _GROWING})
        return DesignRecord(space=space, growing=growing, confirm=dict(self.confirm or {}))


def load_design(path: str, overrides: Sequence[str] = ()) -> DesignRecipe:
    """Read the recipe of a search; raises ``IwloraError`` with every problem."""
    return design_from(override(read_yaml(path), overrides))


def design_from(settings: Mapping[str, Any]) -> DesignRecipe:
    """The search that settings describe.

    Raises:
        IwloraError: Every problem of the recipe, and of its choices with this model; what needs a
            design that the model can have is checked if there is one.
    """
    checked, wrong = read_settings(settings.get("design"))
    confirm, problems = confirm_settings(settings.get("confirm", {}), checked)
    problems = [*dict.fromkeys(problem for each in wrong.values() for problem in each), *problems]
    run, of_run = _shared_settings(settings, checked, wrong)
    problems = [*of_run, *problems]
    if run is None or not wrong.keys().isdisjoint(("order", "groups")):
        raise IwloraError("\n".join(problems))
    try:
        designs = Designs(run)
    except IwloraError as error:
        raise IwloraError("\n".join([*problems, str(error)])) from None
    method = run.method
    assert isinstance(method, Grouped)
    fixed = {
        component: getattr(method.components, field)
        for component, field in FIELDS.items()
        if component not in checked.order
    }
    space = space_of(checked, fixed, designs.depths)
    known_wrong = [*wrong, *(fixed if of_run else ())]  # the method may have been replaced
    of_choices = [*choice_problems(space, checked, designs, known_wrong)]
    problems += of_choices
    design = DesignRecipe(run, checked, space, fixed, designs, confirm)
    if not (of_run or of_choices) and wrong.keys().isdisjoint(_OF_DESIGNS):
        problems += _undrawable(design)
        problems += [] if {"draws", "error"} & wrong.keys() else _undecidable_stages(design)
    problems += confirmation_problems(confirm, run, with_model=not of_run)
    if problems:
        raise IwloraError("\n".join(problems))
    return design


def _shared_settings(
    settings: Mapping[str, Any], checked: DesignSettings, wrong: Collection[str]
) -> tuple[Recipe | None, list[str]]:
    """The settings of the runs, and every problem of them.

    If their method or their training is wrong, others replace it, so that the choices can be
    checked with the model. None: with the model, the task or the budget something is wrong.
    """
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
    if not {"order", "groups"} & {*wrong}:
        problems += dict.fromkeys(_method_problems(checked, method))
    given = {"budget": "0.5%", **given}
    try:
        return _with_method(given, method, checked), problems
    except IwloraError as error:
        problems += str(error).splitlines()
    given.pop("train", None)
    try:
        return build({**given, "method": {"name": "grouped", "strategies": [["lora"]]}}), problems
    except IwloraError:
        return None, problems


def _with_method(
    given: Mapping[str, Any], method: Mapping[str, Any], checked: DesignSettings
) -> Recipe:
    """The settings of the runs; the method has the options that all designs share.

    Where the assignment is searched, options of all parts that designs may have are accepted.

    Raises:
        IwloraError: Every problem.
    """
    settings = {"name": "grouped", **method}
    if "assignment" not in checked.order:
        return build({**given, "method": settings})
    names = [name for name in parts_of(checked) if name in STRATEGIES] or STRATEGIES
    known = {field: settings.pop(field) for field in _OF_GROUPS if field in settings}
    sets = [["lora"]] * checked.groups
    components, problems = build_method({"name": "grouped", "strategies": sets, **known})
    try:
        run = build({**given, "method": {**settings, "strategies": [[name] for name in names]}})
    except IwloraError as error:
        problems += str(error).splitlines()
    raise_all(problems)
    update = {field: getattr(components, field) for field in known}
    return run.model_copy(update={"method": run.method.model_copy(update=update)})


def with_defaults(run: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of the runs, with the defaults of those that a later version added.

    Raises:
        IwloraError: They are no settings of a run.
    """
    given = run.get("method")
    if not isinstance(given, Mapping):
        raise IwloraError(f"method={short_repr(given)}: accepted is a mapping with a name")
    method = {key: value for key, value in given.items() if key not in _OF_GROUPS}
    settings = build({**run, "method": method}).settings()
    return {**settings, "method": {**settings["method"], **given}}


def _method_problems(settings: DesignSettings, method: Mapping[str, Any]) -> Iterator[str]:
    """Options of the method that the search decides, and those that it would need."""
    for component in settings.order:
        for field in (FIELDS[component], "sizes"):
            if method.get(field) is not None:
                yield (
                    f"method.{field}: the search decides it; remove it, or take {component} out of "
                    "design.order"
                )
    preset = method.get("preset")
    if preset == "random" or (preset is not None and "assignment" in settings.order):
        yield "method.preset: the search decides the components; remove it"
    elif "assignment" not in settings.order:
        published = PRESETS.get(preset) if isinstance(preset, str) else None
        sets = method.get("strategies", published and [*published.strategies])
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


def _undrawable(design: DesignRecipe) -> list[str]:
    """Why no design lies within the budget, if none does."""
    stage = next(stage for stage in design.stages if stage.component != LR)
    settings = design.draw_settings(design.fixed)
    try:
        possible, _ = possible_choices(stage, settings)
        draw_designs(possible, 0, settings)
    except IwloraError as error:
        return str(error).splitlines()
    return []
