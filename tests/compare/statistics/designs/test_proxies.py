"""Proxies of mixtures from the results of their runs and a measured sensitivity."""

from __future__ import annotations

import numpy as np
import pytest

from iwlora.compare.statistics.designs.proxies import (
    LAYERS,
    PARAMETERS,
    SENSITIVITY,
    LayerProxy,
    layer_parameters,
    proxy_rows,
    sensitivity_proxy,
)
from iwlora.results.run import RunResult, SiteRank
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity

pytestmark = pytest.mark.quick
BLOCKS = [f"encoder.layer.{number}" for number in range(12)]
SITES = [
    SiteSensitivity(f"{layer}.{name}", name, depth, 4, 4, value=value * (1 + depth), stderr=0)
    for depth, layer in enumerate(BLOCKS)
    for name, value in (("query", 3.0), ("value", 4.0))
]
MEASURED = Sensitivity(tuple(SITES), "exact", 8, 0.0, True, 0.1)


def result(counts: dict[str, int]) -> RunResult:
    parts = [
        SiteRank(name=layer, kind=kind, depth=0, rank=1, parameters=count // 2)
        for layer, count in counts.items()
        for kind in ("lora", "prefix")
    ]
    known = {"label": "a", "model": "m", "ranks": parts}
    return RunResult.from_score("grouped", "task", 0, "accuracy", 0.7, **known)


def test_the_importance_of_a_layer_is_that_of_its_matrices_together() -> None:
    assert MEASURED.of_block("encoder.layer.1") == pytest.approx(10.0)
    assert MEASURED.of_block("encoder.layer.11") == pytest.approx(60.0)
    assert layer_parameters(result({"a": 10, "b": 4})) == {"a": 10, "b": 4}


def test_a_planted_importance_is_found_and_parameters_are_not() -> None:
    random, designs, scores = np.random.default_rng(3), [], []
    for _ in range(24):
        counts = 2 * random.integers(1, 500, size=12)
        designs.append(dict(zip(BLOCKS, map(int, counts), strict=True)))
        of_layers = np.arange(1, 13) * 5.0
        scores.append(float(counts @ of_layers / counts.sum() + random.normal(scale=0.5)))
    sensitivity = {block: MEASURED.of_block(block) for block in BLOCKS}
    proxies = {SENSITIVITY: sensitivity_proxy(designs, sensitivity)}
    rows = {row.name: row for row in proxy_rows(designs, scores, proxies)}
    found = rows[SENSITIVITY]
    assert found.correlation.rho > 0.8
    assert found.p_value is not None
    assert found.p_value <= 0.05
    assert abs(found.permuted_rho or 0) < 0.2
    plain = rows[PARAMETERS].correlation
    assert (plain.low or 0) < 0 < (plain.high or 0)
    assert (rows[LAYERS].correlation.rho, rows[LAYERS].p_value) == (0, None)


def test_permuted_values_are_those_of_other_layers_with_all_their_parts() -> None:
    values = {"a": {"lora": 1.0, "prefix": 10.0}, "b": {"lora": 2.0}, "c": {"prefix": 30.0}}
    amounts = [{"a": {"lora": 3.0}, "c": {"prefix": 2.0}}, {"b": {"lora": 1.0, "prefix": 1.0}}]
    orders = [[0, 1, 2], [2, 0, 1]]
    expected = [
        [
            sum(
                amount * values[[*values][order[[*values].index(layer)]]].get(part, 0.0)
                for layer, parts in design.items()
                for part, amount in parts.items()
            )
            for design in amounts
        ]
        for order in orders
    ]
    found = LayerProxy(amounts, values).numbers(np.array(orders))
    assert found.tolist() == expected == [[63.0, 2.0], [0.0, 11.0]]
