"""What is measured before a search, against autograd, and its table in the summary."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.statistics.designs.proxies import (
    LAYERS,
    PARAMETERS,
    SENSITIVITY,
    START_GRADIENT,
)
from iwlora.design.proxies.measuring import BATCHES, measure_layers
from iwlora.design.recipe import design_from
from iwlora.design.report.text import summary_text
from iwlora.design.search import run_design
from iwlora.results.comparison.designs import DesignSummary, LayerMeasurements
from iwlora.training.load import load
from planted_designs import PlantedRuns, planted
from simulated_runs import result_of

Settings = Callable[..., dict[str, Any]]


def test_each_part_of_each_layer_is_measured_as_autograd_says(
    settings: Settings, tiny_bert: Path
) -> None:
    given = settings(order=["assignment"], groups=2, strategies=["bitfit", "lora"])
    del given["method"]
    design = design_from({**given, "model": str(tiny_bert), "budget": 2000})
    measured = measure_layers(design)
    point = {"groups": "uniform", "strategies": (("bitfit",),)}
    recipe = design.designs.recipe(point, seed=0, lr=1e-3)
    task = recipe.task.model_copy(update={"holdout": design.settings.holdout})
    loaded = load(recipe.model_copy(update={"task": task, "budget": None}))
    model, batches = loaded.model.eval(), [*islice(loaded.training_batches(), BATCHES)]
    sum(loaded.task.kind.batch_loss(model, batch) for batch in batches).div(len(batches)).backward()
    blocks = [layer.block for layer in design.designs.layers]
    assert [*measured.start] == [*measured.sensitivity] == blocks
    for block in blocks:
        inside = dict(model.get_submodule(block).named_parameters())
        biases = [p.grad for name, p in inside.items() if name.endswith("bias")]
        expected = sum(float(gradient.double().square().sum()) for gradient in biases)
        assert measured.start[block]["bitfit"] == pytest.approx(expected, rel=1e-3)
        weights = [p.grad for name, p in inside.items() if p.ndim == 2]
        total = sum(float(gradient.double().square().sum()) for gradient in weights)
        # The norm of the mean gradient is at most the mean of the norms of batches.
        assert 0 < total**0.5 < 1.01 * measured.sensitivity[block]
        assert measured.start[block]["lora"] > 0


def test_runs_that_measured_importance_have_the_sizes_that_it_gave_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of equal layers would not be theirs; planted here: all parameters in one layer."""
    sets = {"allocation": ["uniform", "importance"]}
    design = design_from(settings(order=["allocation"], draws=[8], choices=sets))
    blocks = [layer.block for layer in design.designs.layers]

    def with_sizes(recipe: Any, score: float) -> dict[str, Any]:
        part = {"name": blocks[3], "kind": "lora", "depth": 3, "rank": 2, "parameters": 90}
        is_measured = recipe.method.allocation == "importance"
        return {**result_of(recipe, score), "ranks": [part] if is_measured else []}

    monkeypatch.setattr("planted_designs.result_of", with_sizes)
    found = LayerMeasurements(
        batches=1,
        sensitivity=dict.fromkeys(blocks, 1.0),
        start={block: {"lora": 1.0} for block in blocks},
    )
    runs = PlantedRuns(planted({"importance": 0.2}))
    summary = run_design(design, tmp_path, runs, lambda _: None, lambda *_: found)
    rows = {proxy.name: proxy for proxy in summary.proxies}
    assert rows[LAYERS].rho < -0.8


def test_planted_layers_order_the_scores_and_are_measured_once(
    settings: Settings, tmp_path: Path
) -> None:
    design = design_from(settings(order=["allocation"], draws=[8]))
    blocks = [layer.block for layer in design.designs.layers]
    parts = ("pfeiffer", "lora", "bitfit")
    found = LayerMeasurements(
        batches=1,
        sensitivity={block: 1.0 + depth for depth, block in enumerate(blocks)},
        start={block: dict.fromkeys(parts, 20.0 - depth) for depth, block in enumerate(blocks)},
    )
    runs = PlantedRuns(planted({"increasing": 0.2, "decreasing": -0.2}))
    summary = run_design(design, tmp_path, runs, lambda _: None, lambda *_: found)
    rows = {proxy.name: proxy for proxy in summary.proxies}
    assert rows[SENSITIVITY].rho > 0.8
    assert (rows[SENSITIVITY].low or 0) > 0.5
    assert rows[SENSITIVITY].p_value is not None
    assert rows[START_GRADIENT].rho < -0.8, "the lower layers are planted to have the most"
    assert (rows[PARAMETERS].runs, rows[PARAMETERS].draws) == (24, 8)
    assert rows[PARAMETERS].permuted_rho is None
    assert SENSITIVITY in summary_text(summary)

    def measured_again(*_: object) -> LayerMeasurements:
        raise AssertionError("it is in the folder")

    again = run_design(design, tmp_path, runs, lambda _: None, measured_again)
    assert again == summary == DesignSummary.load(tmp_path / "summary.json")
    assert LayerMeasurements.load(tmp_path / "proxies.json") == found
