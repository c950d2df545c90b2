"""What ``design:`` of a recipe says: which components are searched, how, among which choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from iwlora.compare.plan.search.learning_rate import LearningRate
from iwlora.errors import short_repr
from iwlora.inputs.limits import Count
from iwlora.methods.grouped.components import ACCEPTED
from iwlora.methods.grouped.division import Allocation
from iwlora.methods.grouped.grouping import MOST_GROUPS, Pattern
from iwlora.methods.grouped.options import Factor
from iwlora.methods.grouped.parts import STRATEGIES
from iwlora.methods.grouped.space import FIELDS, Strategy
from iwlora.results.comparison.record import MAX_SEEDS, Looks, RaceRule, distinct
from iwlora.training.overrides import Model, validate

Component = Literal["grouping", "allocation", "tuned", "assignment"]
LARGEST_DESIGN_SEED = 1000
GRID = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
"""The learning rates that ``lr: search`` tries."""
WIDENED = 2
"""How often the grid is widened where its best learning rate is at an end."""


_ACCEPTED = {
    "grouping": ACCEPTED["groups"],
    "allocation": ACCEPTED["allocation"],
    "tuned": ACCEPTED["tuned"],
    "assignment": "lists of parts, such as [lora, pfeiffer]",
}


def _two_or_more(choices: list[Any] | None) -> list[Any] | None:
    if choices is not None and len(choices) < 2:
        raise ValueError(
            "a stage needs at least two choices; give more, or take it out of design.order and "
            "set it in method"
        )
    return None if choices is None else distinct(choices)


class Choices(BaseModel):
    """The choices of each component; null: all that the model allows, see docs/design.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grouping: Annotated[list[Pattern | tuple[Count, ...]] | None, AfterValidator(_two_or_more)] = (
        None
    )
    """Patterns of the groups' sizes, or counts such as [2, 4, 4, 2]."""
    allocation: Annotated[
        list[Allocation | tuple[Factor, ...]] | None, AfterValidator(_two_or_more)
    ] = None
    """How parameters are divided over the layers, or weights, one for each group."""
    tuned: Annotated[
        list[Literal["all"] | tuple[Count, ...]] | None, AfterValidator(_two_or_more)
    ] = None
    """Which groups are tuned: all, or their numbers from 1."""
    assignment: Annotated[list[Strategy] | None, AfterValidator(_two_or_more)] = None
    """The sets of strategies that a group can have."""

    @field_validator(*FIELDS, mode="wrap")
    @classmethod
    def _say_what_is_accepted(cls, value: Any, parse: Any, info: ValidationInfo) -> Any:
        try:
            return parse(value)
        except ValidationError as error:
            places = [int(fault["loc"][0]) for fault in error.errors() if fault["loc"]]
            if isinstance(value, list) and not places:
                raise  # each choice is of a kind that is accepted
            wrong = (
                [value[k] for k in dict.fromkeys(places)] if isinstance(value, list) else [value]
            )
            accepted = _ACCEPTED[str(info.field_name)]
            text = " and ".join(map(short_repr, wrong))
            raise ValueError(f"{text} is no choice; accepted are {accepted}") from error


class DesignSettings(BaseModel):
    """The ``design:`` part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Annotated[list[Component], AfterValidator(distinct), Field(min_length=1)] = [
        *("grouping", "allocation", "tuned", "assignment")
    ]
    """The components that are searched, one after another. ``method`` sets the others."""
    search: Literal["race", "paper", "screen"] = "race"
    """race: choices on common draws, which are dropped on paired evidence; paper: independent
    designs for each choice, of which the best mean is kept; screen: a race, but one factorial
    experiment for the whole assignment."""
    draws: Looks = [8, 16, 32, 64]
    """The numbers of draws after which a race drops choices."""
    models: Annotated[int, Field(ge=2, le=MAX_SEEDS)] = 100
    """The number of designs of each choice with search: paper."""
    designs: Annotated[int, Field(ge=2, le=MAX_SEEDS)] = 192
    """The number of designs of the factorial experiment with search: screen."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The largest probability that a stage drops a choice for one that is not better."""
    lr: Literal["search"] | LearningRate | list[LearningRate] = "search"
    """The learning rate of all designs; or search, or a list of them to try: one is chosen on as
    many random designs as the first number of draws, for all designs. Where the best is at an end,
    up to two more are tried beyond it."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """The part of the training rows that designs are scored on, and not trained on."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_DESIGN_SEED, strict=True)] = 0
    """Decides all draws."""
    groups: Annotated[Count, Field(ge=2, le=MOST_GROUPS)] = 4
    """How many groups the layers are divided into."""
    strategies: Annotated[list[str], Field(min_length=1)] = [
        *("pfeiffer", "prefix", "bitfit", "lora")
    ]
    """The parts that a group's layers can have."""
    choices: Choices = Choices()

    @field_validator("strategies")
    @classmethod
    def _known_and_different(cls, value: list[str]) -> list[str]:
        unknown = [name for name in dict.fromkeys(value) if name not in STRATEGIES]
        problems = [f"{' and '.join(map(repr, unknown))} is no part"] if unknown else []
        twice = [name for name in dict.fromkeys(value) if value.count(name) > 1]
        problems += [f"{' and '.join(twice)} is given twice"] if twice else []
        if problems:
            raise ValueError(f"{', and '.join(problems)}; accepted are {', '.join(STRATEGIES)}")
        return value

    @field_validator("lr")
    @classmethod
    def _enough_learning_rates(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) < 3:
            raise ValueError("give one learning rate, or at least three different ones to search")
        return sorted(set(value)) if isinstance(value, list) else value

    @property
    def learning_rates(self) -> list[float]:
        """Those that are tried; none if it is given."""
        if self.lr == "search":
            return GRID
        return self.lr if isinstance(self.lr, list) else []

    @property
    def race(self) -> RaceRule:
        """The rule of a stage."""
        return RaceRule(draws=self.draws, error=self.error)


def read_settings(given: Any) -> tuple[DesignSettings, dict[str, list[str]]]:
    """The settings, and {field, or component of ``choices``: what is wrong with it}.

    Defaults replace what is wrong, so that the rest can be checked with the model too; of the
    strategies those stay that exist.
    """
    settings, wrong = _field_by_field(DesignSettings, given or {}, "design")
    if isinstance(given, Mapping) and "choices" in wrong:
        del wrong["choices"]
        choices, of_choices = _field_by_field(Choices, given["choices"], "design.choices")
        settings = settings.model_copy(update={"choices": choices})
        wrong |= of_choices
    if isinstance(given, Mapping) and "strategies" in wrong:
        names = given["strategies"] if isinstance(given["strategies"], list) else []
        known = [name for name in STRATEGIES if name in names]
        settings = settings.model_copy(update={"strategies": known})
    return settings, wrong


def _field_by_field(
    model: type[Model], given: Any, name: str
) -> tuple[Model, dict[str, list[str]]]:
    if not isinstance(given, Mapping):
        _, problems = validate(model, given, name)
        return model(), dict.fromkeys(model.model_fields, problems)
    wrong = {}
    for field, value in given.items():
        _, problems = validate(model, {field: value}, name)
        if problems:
            wrong[field] = problems
    right = {field: value for field, value in given.items() if field not in wrong}
    return model.model_validate(right), wrong
