"""A comparison of runs that are ranked by perplexity, from the search to the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.report.verdict import verdict
from iwlora.compare.statistics.analysis import analyze
from iwlora.results.comparison import load
from iwlora.training.recipe import Recipe
from simulated_runs import SimulatedExecutor, simulate


class RankedByPerplexity(SimulatedExecutor):
    """Writes a perplexity, and an accuracy that contradicts it."""

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        ended = super().wait(timeout)
        file = ended[0][0] / "result.json"
        result = json.loads(file.read_text())
        value = result["metrics"]["accuracy"]
        metrics = {"perplexity": value, "accuracy": value, "loss": math.log(value)}
        file.write_text(json.dumps(result | {"metrics": metrics, "primary_metric": "perplexity"}))
        return ended


def lowest_at_1e_3(recipe: Recipe, _: int) -> float:
    """A perplexity that is lowest at 1e-3, and lower for IW-LoRA."""
    gain = 0.5 if recipe.method.name == "iw-lora" else 0.0
    return 8.0 + abs(math.log10(recipe.train.lr) + 3) + 0.01 * recipe.train.seed - gain


@pytest.mark.quick
def test_the_lowest_perplexity_is_searched_and_wins(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    search: dict[str, Any] = {"lr": [1e-4, 1e-3, 1e-2], "seeds": [7]}
    plan = make_plan(search=search, seeds=[0, 1, 2, 3, 4, 5])
    failed, _ = simulate(plan, tmp_path / "out", RankedByPerplexity(lowest_at_1e_3))
    assert failed == []
    comparison = load(tmp_path / "out")
    assert {label: choice.lr for label, choice in comparison.search.items()} == {
        "lora": 1e-3,
        "iw-lora": 1e-3,
    }
    analysis = analyze([comparison])
    (difference,) = analysis.tasks[0].differences
    assert difference.summary.mean == pytest.approx(-0.5)
    assert difference.outcome == "lower"
    assert "perplexity (lower is better)" in verdict(analysis)
