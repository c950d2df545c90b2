"""A design: which layers of a model have which parts; and the published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iwlora.errors import raise_all
from iwlora.methods.grouped.division import Cost
from iwlora.methods.grouped.grouping import Pattern
from iwlora.methods.grouped.parts import Layer
from iwlora.results.sensitivity import Sensitivity

Strategies = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Preset:
    """The groups and strategies of a published design."""

    groups: Pattern
    strategies: Strategies


PRESETS: Mapping[str, Preset] = {
    # Chen et al. 2023, arXiv:2301.01821: what their search finds for T5-base.
    "s4": Preset(
        "spindle",
        (
            ("pfeiffer", "lora"),
            ("pfeiffer", "prefix"),
            ("pfeiffer", "prefix", "bitfit"),
            ("prefix", "bitfit", "lora"),
        ),
    )
}


@dataclass(frozen=True)
class Design:
    """The layers of a model with their parts.

    Args:
        layers: those that are tuned, in the order of the model.
        weights: what the parameters of each are in proportion to.
        costs: the cost of each part of each layer.
        notes: what was left out, and why.
    """

    layers: tuple[Layer, ...]
    weights: tuple[float, ...]
    costs: tuple[Mapping[str, Cost], ...]
    notes: tuple[str, ...] = ()

    @property
    def shares(self) -> list[tuple[float, Mapping[str, Cost]]]:
        """(weight, costs) of each layer."""
        return list(zip(self.weights, self.costs, strict=True))

    def check_sizes(self, sizes: Sequence[Mapping[str, int]]) -> None:
        """Raise ``IwloraError`` for sizes that a layer cannot have."""
        raise_all(
            [
                f"method.sizes has {name}={chosen[name]} in {layer.block}; accepted are 1 to "
                f"{cost.largest:,}"
                for layer, costs, chosen in zip(self.layers, self.costs, sizes, strict=True)
                for name, cost in costs.items()
                if cost.largest is not None and not 1 <= chosen[name] <= cost.largest
            ]
        )


def gradient_norm(layer: Layer, sensitivity: Sensitivity) -> float:
    """√Σ s_k² over the matrices of a layer: the norm of their gradients taken together."""
    values = sensitivity.values
    return math.hypot(*(values.get(site.name, 0.0) for site in layer.sites))
