"""Numbers that are known of a mixture before it is trained, beside the scores of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iwlora.compare.statistics.designs.factorial import Array
from iwlora.compare.statistics.designs.rank_correlations import ProxyRow, proxy_table
from iwlora.results.run import RunResult

PARAMETERS = "number of parameters"
LAYERS = "number of layers with parameters"
SENSITIVITY = "sensitivity of the frozen weights"
START_GRADIENT = "gradient at the start"
PERMUTATIONS = 999

Amounts = Mapping[str, Mapping[str, float]]
"""{layer: {part: how much of it a design has there}}."""


def layer_parameters(result: RunResult) -> dict[str, int]:
    """{layer: number of parameters that the run trained there}, for a mixture."""
    counts: dict[str, int] = {}
    for part in result.ranks:
        if part.parameters is not None:
            counts[part.name] = counts.get(part.name, 0) + part.parameters
    return counts


@dataclass(frozen=True)
class LayerProxy:
    """A number for each design, Σ_l Σ_p a_lp v_lp, from what is measured once in each layer.

    Args:
        amounts: {layer: {part: a_lp}} of each design.
        values: {layer: {part: v_lp}}, measured; the layers are all that a design can tune.
    """

    amounts: Sequence[Amounts]
    values: Amounts

    def numbers(self, orders: Array) -> Array:
        """Of each design, with the values of the layers in other orders: shape (orders, designs).

        Args:
            orders: shape (orders, layers): the index of the layer whose values a layer gets.

        Example:
            >>> proxy = LayerProxy([{"a": {"lora": 2.0}}], {"a": {"lora": 3.0}, "b": {"lora": 5.0}})
            >>> proxy.numbers(np.array([[0, 1], [1, 0]])).tolist()
            [[6.0], [10.0]]
        """
        parts = list(dict.fromkeys(part for of_layer in self.values.values() for part in of_layer))

        def table(given: Amounts) -> list[list[float]]:
            rows = (given.get(layer, {}) for layer in self.values)
            return [[of_layer.get(part, 0.0) for part in parts] for of_layer in rows]

        amounts: Array = np.array([table(each) for each in self.amounts])
        values: Array = np.array(table(self.values))
        found: Array = np.einsum("dlp,olp->od", amounts, values[orders], optimize=True)
        return found


def sensitivity_proxy(
    counts: Sequence[Mapping[str, int]], sensitivity: Mapping[str, float]
) -> LayerProxy:
    """The sensitivity of the layer that a parameter is in, on average: Σ_l p_l s_l / Σ_l p_l.

    Args:
        counts: {layer: p_l, the number of its parameters} of each design.
        sensitivity: {layer: s_l} of the frozen model, of all layers that a design can tune.
    """
    shares = [{layer: {"all": n / sum(c.values())} for layer, n in c.items()} for c in counts]
    return LayerProxy(shares, {layer: {"all": value} for layer, value in sensitivity.items()})


def proxy_rows(
    counts: Sequence[Mapping[str, int]],
    scores: Sequence[float],
    of_layers: Mapping[str, LayerProxy],
    draws: Sequence[int] | None = None,
    seed: int = 0,
) -> list[ProxyRow]:
    """How well what is known before training orders the scores of mixtures.

    The proxies are the number of parameters, the number of layers that have some, and those that
    are made of what was measured in each layer. The latter are compared with 999 permutations of
    these values among all layers.

    Args:
        counts: {layer: number of parameters} of the design of each run.
        scores: those of the runs, larger is better.
        of_layers: {name: the proxy}.
        draws: the draw of each run; None: each is one of its own.
        seed: of the permutations.

    Raises:
        ValueError: there are fewer than three runs, or a number is not finite.
    """
    generator = np.random.default_rng(seed)
    proxies: dict[str, Sequence[float]] = {
        PARAMETERS: [sum(count.values()) for count in counts],
        LAYERS: [len(count) for count in counts],
    }
    permuted: dict[str, Sequence[Sequence[float]]] = {}
    for name, proxy in of_layers.items():
        layers = len(proxy.values)
        orders = [np.arange(layers), *(generator.permutation(layers) for _ in range(PERMUTATIONS))]
        found, *others = proxy.numbers(np.array(orders)).tolist()
        proxies[name], permuted[name] = found, others
    return proxy_table(proxies, scores, draws, permuted)
