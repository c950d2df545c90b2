"""The options of mixtures: what a recipe may say of one, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, CountOrZero, Number, Seed
from iwlora.methods.contract import Method
from iwlora.methods.grouped.components import (
    ACCEPTED,
    PRESETS,
    Components,
    Strategies,
    raise_value_error,
    strategy_problems,
)
from iwlora.methods.grouped.division import Allocation
from iwlora.methods.grouped.grouping import Pattern
from iwlora.methods.grouped.parts import (
    LINEAR,
    PREFIX,
    STRATEGIES,
    Part,
    combination_problems,
    option_problems,
)
from iwlora.methods.grouped.random_design import GROUPS, PARTS

Factor = Annotated[Number, Field(gt=0)]


class GroupedOptions(Method):
    """What a recipe says of a mixture, checked, and what follows from it without a model."""

    preset: Literal["s4", "random"] | None = None
    """A design that sets the components that are not given: s4: groups and strategies as Chen et
    al. published them; random: groups, strategies, allocation and tuned, drawn by design_seed."""
    design_seed: Seed = 0
    """The seed of preset=random, for all runs; the design is in the notes of the result."""
    groups: Pattern | tuple[Count, ...] | None = None
    """How many layers each group has, from the input on: counts, or their pattern. None: uniform"""
    allocation: Allocation | tuple[Factor, ...] | None = None
    """How a layer's parameters depend on its place: numbers are weights, one for each group;
    importance: by the sensitivity of the layer's matrices, measured before training. None:
    uniform"""
    tuned: Literal["all"] | tuple[Count, ...] | None = None
    """The numbers of the groups that have parts, from 1; the others stay frozen. None: all"""
    strategies: Strategies | None = None
    """The parts of each group's layers. None: one group with lora and pfeiffer."""
    part_size: Count = 8
    """Without a budget, the size of each part: rank, bottleneck or number of prefix tokens."""
    options: Mapping[str, Mapping[str, Any]] = {}
    """Options of low-rank and bottleneck parts by their names, such as {lora: {lora_alpha: 32}}."""
    lr_factors: Mapping[str, Factor] = {}
    """Factors of the learning rate by part, such as {prefix: 10}."""
    adapter_parameters: Count | None = None
    """The number of parameters to divide; ``budget`` sets it."""
    sizes: dict[str, dict[str, CountOrZero]] | None = None
    """{layer: {part: size}}, as a saved adapter has them; they replace all settings above."""

    @field_validator(*ACCEPTED, mode="wrap")
    @classmethod
    def _say_what_is_accepted(cls, value: Any, parse: Any, info: ValidationInfo) -> Any:
        try:
            parsed = parse(value)
        except ValidationError as error:
            raise ValueError(f"accepted are {ACCEPTED[str(info.field_name)]}") from error
        if info.field_name == "strategies" and not info.data.keys() >= ACCEPTED.keys() - {
            "strategies"
        }:
            raise_value_error(strategy_problems(parsed or ()))  # the next validator is not called
        return parsed

    @model_validator(mode="after")
    def _parts_can_be_combined(self) -> Self:
        problems = [
            *self.components.problems(),
            *(
                f"layer {block}: {problem}"
                for block, sizes in (self.sizes or {}).items()
                for problem in combination_problems(tuple(sizes))
            ),
            *option_problems(self.options),
        ]
        used = {name for names in self.components.strategies for name in names}
        if self.strategies is None and self.preset == "random":
            used = {*PARTS}
        for field, names in (("options", self.options), ("lr_factors", self.lr_factors)):
            problems += [f"{field}: no group has {name!r}" for name in names if name not in used]
        if self.design_seed and self.preset != "random":
            problems.append(f"design_seed={self.design_seed} was given; it is for preset=random")
        raise_value_error(problems)
        return self

    @property
    def components(self) -> Components:
        """What is given, what the preset sets, and the defaults; some sets where they are drawn."""
        preset = PRESETS.get(self.preset or "")
        groups, strategies = self.groups, self.strategies
        if groups is None:
            groups = preset.groups if preset else "uniform"
        if strategies is None:
            strategies = preset.strategies if preset else (("lora", "pfeiffer"),)
            if self.preset == "random":
                strategies = (("lora",),) * (self.given_groups() or GROUPS)
        return Components(
            groups,
            strategies,
            "uniform" if self.allocation is None else self.allocation,
            "all" if self.tuned is None else self.tuned,
        )

    def given_groups(self) -> int | None:
        """The number of groups, if a component gives it."""
        for given in (self.strategies, self.groups, self.allocation):
            if given is not None and not isinstance(given, str):
                return len(given)
        return None

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the parts that some layer has; none where the design is not drawn yet."""
        if self.sizes is not None:
            sets: Iterable[Iterable[str]] = self.sizes.values()
        elif self.preset == "random":
            return ()
        else:
            sets = self.components.tuned_strategies
        names = {name for group in sets for name in group}
        return tuple(name for name in STRATEGIES if name in names)

    @property
    def identity_at_init(self) -> bool:  # type: ignore[override]
        """Whether no layer has a prefix: all other parts change nothing before training."""
        return bool(self.used) and PREFIX not in self.used

    @property
    def unmergeable(self) -> str | None:  # type: ignore[override]
        """Which parts cannot be part of a weight; None if there are none, or none drawn yet."""
        others = [name for name in self.used if name not in LINEAR]
        return f"{' and '.join(others)} cannot be part of a weight" if others else None

    def with_budget(self, parameters: int) -> Self:
        """The same mixture with so many parameters to divide.

        Raises:
            IwloraError: the sizes of the parts are given.
        """
        if self.sizes is not None:
            raise IwloraError(
                "method.sizes was given, and a budget, which would be divided into other sizes; "
                "remove one of the two"
            )
        return self.model_copy(update={"adapter_parameters": parameters})

    def part(self, name: str) -> Part:
        """A part with its options."""
        return Part(name, self.options.get(name, {}), self.part_size)
