"""Unequal budgets are marked, whether the recipe set them or pruning ended at another size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.statistics.budget_parity import budget_ratios
from iwlora.results.comparison import load
from report_pages import all_texts, content_of

pytestmark = pytest.mark.quick


def set_adapter_parameters(folder: Path, label: str, *counts: int) -> None:
    """Change the adapter parameters of the runs of an arm, seed by seed."""
    for seed, count in enumerate(counts):
        file = folder / label / f"seed-{seed}" / "result.json"
        result: dict[str, Any] = json.loads(file.read_text())
        file.write_text(json.dumps(result | {"adapter_parameters": count}))


@pytest.mark.parametrize(
    ("counts", "ratio"),
    [
        ((294_912,) * 3, 1.0),
        ((300_000, 309_000, 310_000), 1.0388),
        ((300_000, 320_000, 330_000), 1.0738),
        ((270_000,) * 3, 0.9155),
    ],
)
def test_only_budgets_that_differ_by_more_than_5_percent_are_marked(
    counts: tuple[int, ...], ratio: float, folder: Path
) -> None:
    set_adapter_parameters(folder, "adalora", *counts)
    ratios = budget_ratios(load(folder))
    assert "full" not in ratios, "its size cannot be set"
    assert ratios["adalora"] == pytest.approx(ratio, abs=1e-4)
    assert ratios["lora"] == ratios["iw-lora"] == 1

    content = content_of(folder)
    arms = {arm["label"]: arm for arm in json.loads(summary_json(content))["arms"]}
    unequal = ratio > 1.05 or ratio < 1 / 1.05
    assert {label for label, arm in arms.items() if arm["unequal_budget"]} == (
        {"adalora"} if unequal else set()
    )
    assert arms["full"]["budget_ratio"] is None
    assert arms["adalora"]["budget_ratio"] == ratios["adalora"]
    caveat = f"≠ adalora has {ratio:.2f} times as many adapter parameters as lora"
    for name, text in all_texts(content).items():
        assert (caveat in text) == ("≠" in text) == unequal, name


def test_without_a_sized_baseline_the_first_sized_arm_is_the_reference(
    comparison_in: Callable[..., Path], tmp_path: Path
) -> None:
    folder = comparison_in(tmp_path / "two", arms=("full", "adalora", "iw-lora"))
    set_adapter_parameters(folder, "iw-lora", 589_824, 589_824, 589_824)
    assert budget_ratios(load(folder)) == {"adalora": 1.0, "iw-lora": 2.0}


def test_fixed_sizes_alone_have_no_budget_ratios(
    comparison_in: Callable[..., Path], tmp_path: Path
) -> None:
    assert budget_ratios(load(comparison_in(tmp_path / "one", arms=("full",)))) == {}
