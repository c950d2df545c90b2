"""Mixtures: groups of layers, each with its own set of parts, which share one budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from iwlora.errors import IwloraError, list_problems, raise_all
from iwlora.inputs.limits import Count, CountOrZero, Number
from iwlora.methods.contract import (
    Attached,
    Method,
    ParameterGroup,
    check_unattached,
    mark_attached,
    seeded,
    split_head,
    train_only,
)
from iwlora.methods.grouped import parts as parts_of_layers
from iwlora.methods.grouped.design import PRESETS, Design, Strategies, gradient_norm
from iwlora.methods.grouped.division import Allocation, Cost, divide, layer_weights, total
from iwlora.methods.grouped.grouping import MOST_GROUPS, Pattern, group_sizes
from iwlora.methods.grouped.parts import BIASES, LINEAR, LOW_RANK, PREFIX, STRATEGIES, Layer, Part
from iwlora.methods.named_parameters import parameter_names
from iwlora.methods.peft_models import target_name
from iwlora.methods.saving import save_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.options import DEFAULTS
from iwlora.sites import Site
from iwlora.sites import sites as find_sites

if TYPE_CHECKING:
    from torch import nn

Factor = Annotated[Number, Field(gt=0)]


class Grouped(Method):
    """Groups of layers with different parts: a point of the design spaces of Chen et al.

    A layer can have a low-rank update (lora, rslora or dora), a bottleneck adapter (houlsby,
    pfeiffer or parallel), its biases (bitfit) and a prefix of its own. ``budget`` is divided: the
    biases are deducted, each layer gets its share of the rest by ``allocation``, and each of its
    parts the same, as near as whole sizes come; carried remainders keep the sum within 5% of the
    budget, or it is refused. Encoder and decoder are grouped separately.

    ``targets`` choose the matrices of low-rank updates, and by them the layers; the other parts
    are for whole layers. The scaling of lora and dora is ``lora_alpha / part_size`` at every rank.
    """

    name: ClassVar[str] = "grouped"
    summary: ClassVar[str] = "groups of layers with different parts, which share one budget"
    paper: ClassVar[str] = "Chen et al. 2023, arXiv:2301.01821"
    divides_budgets: ClassVar[bool] = True
    resolved_fields: ClassVar[Collection[str]] = ("adapter_parameters", "sizes")

    preset: Literal["s4"] | None = None
    """A published design; it sets the groups and strategies that are not given."""
    groups: Pattern | tuple[Count, ...] | None = None
    """How many layers each group has, from the input on: counts, or their pattern. None: uniform"""
    strategies: Strategies | None = None
    """The parts of each group's layers. None: one group with lora and pfeiffer."""
    allocation: Allocation | tuple[Factor, ...] = "uniform"
    """How a layer's parameters depend on its place: numbers are weights, one for each group;
    importance: by the sensitivity of the layer's matrices, measured before training."""
    tuned: Literal["all"] | tuple[Count, ...] = "all"
    """The numbers of the groups that have parts, from 1; the others stay frozen."""
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

    @model_validator(mode="after")
    def _parts_can_be_combined(self) -> Self:
        problems = [*self._group_problems(), *parts_of_layers.option_problems(self.options)]
        used = {name for group in self.all_strategies for name in group}
        for field, names in (("options", self.options), ("lr_factors", self.lr_factors)):
            problems += [f"{field}: no group has {name!r}" for name in names if name not in used]
        if problems:
            raise ValueError(list_problems(list(dict.fromkeys(problems))))
        return self

    def _group_problems(self) -> list[str]:
        sets, pattern = self.all_strategies, self.pattern
        of_layers = [
            (f"layer {block}", tuple(sizes)) for block, sizes in (self.sizes or {}).items()
        ]
        named = [(f"group {number}", names) for number, names in enumerate(sets, start=1)]
        problems = [
            f"{where}: {problem}"
            for where, names in (*named, *of_layers)
            for problem in parts_of_layers.combination_problems(names)
        ]
        if not 1 <= len(sets) <= MOST_GROUPS:
            problems.append(f"{len(sets)} groups have strategies; accepted are 1 to {MOST_GROUPS}")
        lengths = (("groups", pattern, "counts"), ("allocation", self.allocation, "weights"))
        for field, given, what in lengths:
            if not isinstance(given, str) and len(given) != len(sets):
                problems.append(
                    f"{field} has {len(given)} {what}, and there are strategies for {len(sets)} "
                    "groups; give one for each"
                )
        if self.tuned != "all":
            wrong = [n for n in self.tuned if n > len(sets) or self.tuned.count(n) > 1]
            if wrong or not self.tuned:
                problems.append(
                    f"tuned={list(self.tuned)} was given; accepted are 'all', and different "
                    f"numbers from 1 to {len(sets)}"
                )
        return problems

    @property
    def pattern(self) -> Pattern | tuple[int, ...]:
        """``groups``, or what it stands for."""
        if self.groups is not None:
            return self.groups
        return PRESETS[self.preset].groups if self.preset else "uniform"

    @property
    def all_strategies(self) -> Strategies:
        """``strategies``, or what they stand for."""
        if self.strategies is not None:
            return self.strategies
        return PRESETS[self.preset].strategies if self.preset else (("lora", "pfeiffer"),)

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the parts that some layer has."""
        sets: list[Sequence[str]] = [
            names
            for number, names in enumerate(self.all_strategies, start=1)
            if self.tuned == "all" or number in self.tuned
        ]
        if self.sizes is not None:
            sets = [list(sizes) for sizes in self.sizes.values()]
        return tuple(name for name in STRATEGIES if any(name in names for names in sets))

    @property
    def identity_at_init(self) -> bool:  # type: ignore[override]
        """Whether no layer has a prefix: all other parts change nothing before training."""
        return PREFIX not in self.used

    @property
    def unmergeable(self) -> str | None:  # type: ignore[override]
        """Which parts cannot be part of a weight; None if there are none."""
        others = [name for name in self.used if name not in LINEAR]
        return f"{' and '.join(others)} cannot be part of a weight" if others else None

    def with_budget(self, parameters: int) -> Self:
        """The same mixture with so many parameters to divide."""
        return self.model_copy(update={"adapter_parameters": parameters})

    def calibration(self) -> dict[str, Any] | None:
        """What ``allocation: importance`` measures: the sensitivity of the frozen matrices."""
        return DEFAULTS.measure_arguments() if self.allocation == "importance" else None

    def check(self, sites: Sequence[Site]) -> None:
        """An allocation divides a budget, so there must be one."""
        if self.allocation != "uniform" and self.adapter_parameters is None and self.sizes is None:
            raise IwloraError(
                f"method.allocation={self.allocation} divides a budget among the layers; give "
                "budget=0.5%, for example"
            )

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """The layers must divide into the groups, and each must be able to have its parts."""
        self.design(model, sites)

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """The sum over all parts; for ``allocation: importance`` as if all layers were alike."""
        design = self.design(model, sites)
        return total(design.shares, self.part_sizes(design))

    def design(
        self, model: nn.Module, sites: Sequence[Site], sensitivity: Sensitivity | None = None
    ) -> Design:
        """The layers with their parts, without sizes.

        Args:
            model: the model; weights are not needed.
            sites: the targets.
            sensitivity: what ``allocation: importance`` measured; None: all layers are alike.

        Raises:
            IwloraError: all reasons why the model cannot have this design.
        """
        layers = parts_of_layers.layers_of(find_sites(model), sites)
        problems: dict[tuple[str, str], str] = {}
        notes: dict[str, str] = {}
        chosen: list[tuple[Layer, float, Mapping[str, Cost]]] = []
        for layer, names, weight in self._grouped(model, layers, sensitivity, problems):
            costs = {}
            for name in names:
                try:
                    costs[name] = self._part(name).cost(model, layer)
                except IwloraError as error:
                    if name == BIASES and self.strategies is None:
                        notes[name] = (
                            f"{name} of preset={self.preset} is left out: "
                            f"{type(model).__name__} has layers without bias terms"
                        )
                    else:
                        problems.setdefault((name, layer.stack), str(error))
            if costs:
                chosen.append((layer, weight, costs))
        if not (chosen or problems):
            problems["layers", ""] = "no layer has a part; give sizes or strategies to some"
        raise_all(list(problems.values()))
        kept, weights, costs_of = zip(*chosen, strict=True)
        return Design(kept, weights, costs_of, tuple(notes.values()))

    def _grouped(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        sensitivity: Sensitivity | None,
        problems: dict[tuple[str, str], str],
    ) -> list[tuple[Layer, Sequence[str], float]]:
        """(layer, names of its parts, weight) of each layer that is tuned."""
        if self.sizes is not None:
            by_block = {layer.block: layer for layer in layers}
            if unknown := self.sizes.keys() - by_block.keys():
                problems["sizes", ""] = (
                    f"sizes has {min(unknown)}, which {type(model).__name__} does not have"
                )
                return []
            return [(by_block[block], list(s), 1.0) for block, s in self.sizes.items()]
        tuned: list[tuple[Layer, Sequence[str], float]] = []
        for stack in dict.fromkeys(layer.stack for layer in layers):
            inside = [layer for layer in layers if layer.stack == stack]
            try:
                counts = self._counts(len(inside))
            except IwloraError as error:
                problems["groups", stack] = f"{stack}: {error}"
                continue
            numbers = [number for number, count in enumerate(counts) for _ in range(count)]
            weights = layer_weights(self.allocation, numbers)
            for layer, number, weight in zip(inside, numbers, weights, strict=True):
                if self.tuned == "all" or number + 1 in self.tuned:
                    tuned.append((layer, self.all_strategies[number], weight))
        if self.allocation == "importance" and sensitivity is not None:
            return [(layer, names, gradient_norm(layer, sensitivity)) for layer, names, _ in tuned]
        return tuned

    def _counts(self, layers: int) -> Sequence[int]:
        if isinstance(self.pattern, str):
            return group_sizes(self.pattern, layers, len(self.all_strategies))
        if sum(self.pattern) != layers:
            raise IwloraError(
                f"groups={list(self.pattern)} have {sum(self.pattern)} layers, and there are "
                f"{layers}; give counts that add up to {layers}, or a pattern"
            )
        return self.pattern

    def _part(self, name: str) -> Part:
        return Part(name, self.options.get(name, {}), self.part_size)

    def part_sizes(self, design: Design) -> list[dict[str, int]]:
        """{part: size} of each layer of a design; 0 for biases.

        Raises:
            IwloraError: the budget cannot be divided within 5%, or a size exceeds its layer.
        """
        if self.sizes is not None:
            sizes = [dict(self.sizes[layer.block]) for layer in design.layers]
            design.check_sizes(sizes)
            return sizes
        if self.adapter_parameters is not None:
            return divide(self.adapter_parameters, design.shares)
        limits = [
            (cost.largest, name, layer.block)
            for layer, costs in zip(design.layers, design.costs, strict=True)
            for name, cost in costs.items()
            if cost.largest is not None
        ]
        if limits and min(limits)[0] < self.part_size:
            largest, name, block = min(limits)
            raise IwloraError(
                f"method.part_size={self.part_size} was given; accepted are 1 to {largest}, "
                f"because of {name} in {block}"
            )
        return [
            {name: self.part_size if cost.unit else 0 for name, cost in costs.items()}
            for costs in design.costs
        ]

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Insert the parts of all layers, and freeze everything else.

        Low-rank updates alone, all of one kind, are attached as that method with a pattern of
        ranks, and so saved in PEFT's format.
        """
        check_unattached(model)
        self.check(sites)
        if self.allocation == "importance" and sensitivity is None and self.sizes is None:
            raise IwloraError(f"{self.name} needs the measured sensitivity of its sites")
        design = self.design(model, sites, sensitivity)
        sizes = self.part_sizes(design)
        names = {name for chosen in sizes for name in chosen}
        if len(names) == 1 and names <= LOW_RANK.keys():
            attached = self._attach_low_rank(names.pop(), model, design, sizes, seed)
            return replace(attached, notes=lambda: design.notes)
        by_block = {layer.block: chosen for layer, chosen in zip(design.layers, sizes, strict=True)}
        resolved = self.model_copy(update={"sizes": by_block})
        _, head = split_head(model)
        inserted: dict[str, list[nn.Parameter]] = {name: [] for name in STRATEGIES}
        with seeded(seed):
            for layer in design.layers:
                for name in STRATEGIES:
                    if name in by_block[layer.block]:
                        size = by_block[layer.block][name]
                        inserted[name] += self._part(name).insert(model, layer, size)
        of_part = {name: parameter_names(model, new) for name, new in inserted.items()}
        new_names = {name for names in of_part.values() for name in names}
        adapter = tuple(name for name, _ in model.named_parameters() if name in new_names)
        train_only(model, adapter + head)
        mark_attached(model, self.name)
        return Attached(
            model=model,
            adapter=adapter,
            head=head,
            save=partial(save_parameters, resolved, model, adapter + head, sites),
            count=lambda: sum(model.get_parameter(name).numel() for name in adapter),
            notes=lambda: design.notes,
            parameter_groups=tuple(
                ParameterGroup(of_part[name], lr_factor=factor)
                for name, factor in self.lr_factors.items()
                if of_part[name]
            ),
        )

    def _attach_low_rank(
        self, name: str, model: Any, design: Design, sizes: Sequence[Mapping[str, int]], seed: int
    ) -> Attached:
        """A low-rank method with the rank of each layer, and its scaling, as a pattern."""
        chosen = [
            (site, self._part(name).method(size[name]))
            for layer, size in zip(design.layers, sizes, strict=True)
            for site in layer.targets
        ]
        # A name that ends with another one comes before it: PEFT takes the first that matches.
        chosen.sort(key=lambda pair: len(target_name(pair[0])), reverse=True)
        methods: list[Any] = [method for _, method in chosen]
        least = min(methods, key=lambda method: method.rank)
        patterns: dict[str, Any] = {}
        if any(method.rank != least.rank for method in methods):
            patterns = {
                "rank_pattern": {target_name(site): m.rank for site, m in chosen},  # type: ignore[attr-defined]
                "alpha_pattern": {target_name(site): m.lora_alpha for site, m in chosen},  # type: ignore[attr-defined]
            }
        targets = [site for layer in design.layers for site in layer.targets]
        attached: Attached = least.attach_with(model, targets, seed, **patterns)
        factor = self.lr_factors.get(name)
        if factor is None:
            return attached
        return replace(attached, parameter_groups=(ParameterGroup(attached.adapter, factor),))
