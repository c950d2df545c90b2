"""Proxies of mixtures from the results of their runs and a measured sensitivity."""

from __future__ import annotations

import numpy as np
import pytest

from iwlora.compare.statistics.designs.proxies import layer_parameters, proxy_rows
from iwlora.results.run import RunResult, SiteRank
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity

pytestmark = pytest.mark.quick
LAYERS = [f"encoder.layer.{number}" for number in range(12)]
SITES = [
    SiteSensitivity(f"{layer}.{name}", name, depth, 4, 4, value=value * (1 + depth), stderr=0)
    for depth, layer in enumerate(LAYERS)
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
    random, results, scores = np.random.default_rng(3), [], []
    for _ in range(24):
        counts = 2 * random.integers(1, 500, size=12)
        results.append(result(dict(zip(LAYERS, map(int, counts), strict=True))))
        of_layers = np.arange(1, 13) * 5.0
        scores.append(float(counts @ of_layers / counts.sum() + random.normal(scale=0.5)))
    rows = {row.name: row for row in proxy_rows(results, scores, MEASURED, LAYERS)}
    found = rows["importance"]
    assert found.correlation.rho > 0.8
    assert found.p_value is not None
    assert found.p_value <= 0.05
    assert abs(found.permuted_rho or 0) < 0.2
    plain = rows["parameters"].correlation
    assert (plain.low or 0) < 0 < (plain.high or 0)
    assert (rows["layers"].correlation.rho, rows["layers"].p_value) == (0, None)
