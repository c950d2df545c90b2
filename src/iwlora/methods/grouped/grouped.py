"""Mixtures: groups of layers, each with its own set of parts, which share one budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.methods.contract import Attached, ParameterGroup, check_unattached, not_measured
from iwlora.methods.grouped.components import COMPONENTS, Assigned
from iwlora.methods.grouped.design import CostOf, Design
from iwlora.methods.grouped.division import divide, total
from iwlora.methods.grouped.low_rank_alone import attach_low_rank
from iwlora.methods.grouped.options import GroupedOptions
from iwlora.methods.grouped.parts import BIASES, LOW_RANK, STRATEGIES, Layer, layers_of
from iwlora.methods.grouped.random_design import random_design, supported_space
from iwlora.methods.named_parameters import attach_inserted, parameter_names
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.options import DEFAULTS
from iwlora.sites import Site
from iwlora.sites import sites as find_sites

if TYPE_CHECKING:
    from torch import nn


class Grouped(GroupedOptions):
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

    def drawn(self, model: nn.Module, sites: Sequence[Site]) -> tuple[Grouped, tuple[str, ...]]:
        """The design of ``preset: random`` on a model, and a note on it; others stay as they are.

        Args:
            model: the model; weights are not needed.
            sites: the targets.

        Raises:
            IwloraError: no random design is possible.
        """
        if self.preset != "random" or self.sizes is not None:
            return self, ()
        layers, cost = layers_of(find_sites(model), sites), self.costs(model)
        space = supported_space(
            layers, cost, self.given_groups(), self.adapter_parameters is not None
        )

        def possible(components: Mapping[str, Any]) -> Grouped:
            design = self.model_copy(update={"preset": None, "design_seed": 0, **components})
            design.part_sizes(design.design_of(layers, cost))
            return design

        given = {name: getattr(self, name) for name in COMPONENTS}
        given = {name: value for name, value in given.items() if value is not None}
        drawn = random_design(self.design_seed, space, given, possible)
        values = drawn.design.model_dump(mode="json", include={*COMPONENTS})
        text = ", ".join(f"{name}={values[name]}" for name in COMPONENTS)
        note = f"preset=random, design_seed={self.design_seed} is {text}".replace("'", "")
        if drawn.redrawn:
            count = "1 design" if drawn.redrawn == 1 else f"{drawn.redrawn:,} designs"
            note += f"; {count} drawn before it did not fit the model and the budget"
        return drawn.design, (note,)

    def calibration(self) -> dict[str, Any] | None:
        """What ``allocation: importance`` measures: the sensitivity of the frozen matrices."""
        return DEFAULTS.measure_arguments() if self.allocation == "importance" else None

    def check(self, sites: Sequence[Site]) -> None:
        """An allocation divides a budget, so there must be one."""
        allocation = self.components.allocation
        if allocation != "uniform" and self.adapter_parameters is None and self.sizes is None:
            raise IwloraError(
                f"method.allocation={allocation} divides a budget among the layers; give "
                "budget=0.5%, for example"
            )

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """The layers must divide into the groups, and each must be able to have its parts."""
        self.design(model, sites)

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """The sum over all parts; for ``allocation: importance`` as if all layers were alike."""
        method, _ = self.drawn(model, sites)
        design = method.design(model, sites)
        return total(design.shares, method.part_sizes(design))

    def trained_modules(self, model: nn.Module, sites: Sequence[Site]) -> Sequence[str] | None:
        """The layers that have parts."""
        return [layer.block for layer in self.design(model, sites).layers]

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
        method, _ = self.drawn(model, sites)
        layers = layers_of(find_sites(model), sites)
        return method.design_of(layers, method.costs(model), sensitivity)

    def design_of(
        self, layers: Sequence[Layer], cost: CostOf, sensitivity: Sensitivity | None = None
    ) -> Design:
        """As :meth:`design`, from the layers and the costs of parts that are known already."""
        if self.sizes is not None:
            assigned, problems = self._assigned_by_sizes(layers)
        else:
            assigned, problems = self.components.assigned(layers)
        if self.allocation == "importance" and sensitivity is not None:
            assigned = [replace(a, weight=sensitivity.of_block(a.layer.block)) for a in assigned]
            if not any(each.weight for each in assigned):
                problems.append(
                    "method.allocation=importance was given, and every sensitivity of the tuned "
                    "layers is 0; take another allocation"
                )
        # What a published design has beside other parts is left out where it is impossible.
        is_published = self.preset and self.strategies is None and self.sizes is None
        return Design.of(assigned, cost, problems, {BIASES} if is_published else ())

    def costs(self, model: nn.Module) -> CostOf:
        """The costs of all parts in a model's layers, each computed once."""
        return cache(lambda name, layer: self.part(name).cost(model, layer))

    def _assigned_by_sizes(self, layers: Sequence[Layer]) -> tuple[list[Assigned], list[str]]:
        by_block = {layer.block: layer for layer in layers}
        sizes = self.sizes or {}
        unknown = sizes.keys() - by_block.keys()
        problems = [f"sizes has {b}, which the model does not have" for b in sorted(unknown)]
        known = [block for block in sizes if block not in unknown]
        return [Assigned(by_block[b], tuple(sizes[b]), 1.0) for b in known], problems

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
        return design.equal_sizes(self.part_size)

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
            raise not_measured(self.name)
        method, notes = self.drawn(model, sites)
        design = method.design(model, sites, sensitivity)
        notes += method._notes(model, design, sites)
        sizes = method.part_sizes(design)
        names = {name for chosen in sizes for name in chosen}
        parts = design.part_records(sizes)
        if len(names) == 1 and names <= LOW_RANK.keys():
            name = names.pop()
            updates = [
                (site, method.part(name).method(chosen[name]))
                for layer, chosen in zip(design.layers, sizes, strict=True)
                for site in layer.targets
            ]
            attached = attach_low_rank(model, updates, seed, self.lr_factors.get(name))
            return replace(attached, notes=lambda: notes, parts=parts)
        by_block = {layer.block: chosen for layer, chosen in zip(design.layers, sizes, strict=True)}
        inserted: dict[str, list[nn.Parameter]] = {name: [] for name in STRATEGIES}

        def insert() -> list[nn.Parameter]:
            for layer in design.layers:
                for name in STRATEGIES:
                    if name in by_block[layer.block]:
                        size = by_block[layer.block][name]
                        inserted[name] += method.part(name).insert(model, layer, size)
            new = {id(parameter) for of_part in inserted.values() for parameter in of_part}
            return [parameter for parameter in model.parameters() if id(parameter) in new]

        saved = self.model_copy(update={"sizes": by_block})
        attached = attach_inserted(saved, model, sites, seed, insert)
        return replace(
            attached,
            notes=lambda: notes,
            parts=parts,
            parameter_groups=tuple(
                ParameterGroup(parameter_names(model, inserted[name]), lr_factor=factor)
                for name, factor in self.lr_factors.items()
                if inserted[name]
            ),
        )

    def _notes(self, model: nn.Module, design: Design, sites: Sequence[Site]) -> tuple[str, ...]:
        left_out = (
            f"{name} of preset={self.preset} is left out: {type(model).__name__} has layers "
            "without bias terms"
            for name in design.left_out
        )
        if self.sizes is not None:
            return tuple(left_out)
        return (*left_out, *self.components.notes(layers_of(find_sites(model), sites)))
