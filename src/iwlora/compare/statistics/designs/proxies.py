"""Numbers that are known of a mixture before it is trained, beside the scores of its runs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from iwlora.compare.statistics.designs.rank_correlations import ProxyRow, proxy_table
from iwlora.results.run import RunResult
from iwlora.results.sensitivity import Sensitivity

PARAMETERS, IMPORTANCE, SPREAD = "parameters", "importance", "layers"
PERMUTATIONS = 999


def layer_parameters(result: RunResult) -> dict[str, int]:
    """{layer: number of parameters that the run trained there}, for a mixture."""
    counts: dict[str, int] = {}
    for part in result.ranks:
        if part.parameters is not None:
            counts[part.name] = counts.get(part.name, 0) + part.parameters
    return counts


def mean_importance(parameters: Mapping[str, int], importance: Mapping[str, float]) -> float:
    """Σ_l p_l i_l / Σ_l p_l: the importance i_l of the layer that a parameter is in, on average.

    >>> mean_importance({"a": 30, "b": 10}, {"a": 1.0, "b": 5.0})
    2.0
    """
    total = sum(parameters.values())
    return sum(count * importance[layer] for layer, count in parameters.items()) / total


def permutations(importance: Mapping[str, float], times: int, seed: int) -> list[dict[str, float]]:
    """The importance, permuted at random among the layers."""
    stream, values = random.Random(seed), list(importance.values())
    return [
        dict(zip(importance, stream.sample(values, len(values)), strict=True)) for _ in range(times)
    ]


def proxy_rows(
    results: Sequence[RunResult],
    scores: Sequence[float],
    sensitivity: Sensitivity,
    layers: Sequence[str],
    draws: Sequence[int] | None = None,
    others: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> list[ProxyRow]:
    """How well what is known before training orders the scores of mixtures.

    The proxies are the number of parameters, the number of layers that have some, and the mean
    importance of the layer of a parameter: √Σ s_k² over the matrices of the layer. That is compared
    with 999 permutations of the importance among all layers.

    Args:
        results: those of the runs.
        scores: theirs, larger is better.
        sensitivity: measured on the frozen model.
        layers: all layers that a design can tune.
        draws: the draw of each run; None: each is one of its own.
        others: further proxies: {name: a number for each run}.
        seed: of the permutations.
    """
    counts = [layer_parameters(result) for result in results]
    importance = {layer: sensitivity.of_block(layer) for layer in layers}
    of_permutations = [
        [mean_importance(count, permuted) for count in counts]
        for permuted in permutations(importance, PERMUTATIONS, seed)
    ]
    proxies: dict[str, Sequence[float]] = {
        PARAMETERS: [sum(count.values()) for count in counts],
        SPREAD: [len(count) for count in counts],
        IMPORTANCE: [mean_importance(count, importance) for count in counts],
        **(others or {}),
    }
    return proxy_table(proxies, scores, draws, {IMPORTANCE: of_permutations})
