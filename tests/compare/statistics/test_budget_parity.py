"""Unequal budgets are marked, whether the recipe forced them or pruning ended elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.report.html import write_report
from iwlora.compare.statistics.budget_parity import budgets
from iwlora.results.loading import load


def counted(folder: Path, label: str, *counts: int) -> None:
    """Let the runs of an arm have these adapter parameters, seed by seed."""
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
def test_only_what_differs_by_more_than_5_percent_is_marked(
    counts: tuple[int, ...], ratio: float, folder: Path
) -> None:
    counted(folder, "adalora", *counts)
    found = budgets(load(folder))
    assert "full" not in found  # its size cannot be set
    assert found["adalora"] == pytest.approx(ratio, abs=1e-4)
    assert found["lora"] == found["iw-lora"] == 1

    write_report(folder)
    summary = json.loads((folder / "summary.json").read_text())
    arms = {arm["label"]: arm for arm in summary["arms"]}
    different = ratio > 1.05 or ratio < 1 / 1.05
    assert {label for label, arm in arms.items() if arm["unequal_budget"]} == (
        {"adalora"} if different else set()
    )
    assert arms["full"]["budget_ratio"] is None
    assert arms["adalora"]["budget_ratio"] == found["adalora"]
    for name in ("summary.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        told = f"adalora ended with {ratio:.2f} times the adapter parameters of lora"
        assert (told in text) == ("≠" in text) == different, name


def test_without_a_sized_baseline_the_first_sized_arm_is_the_measure(
    comparison_in: Callable[..., Path], tmp_path: Path
) -> None:
    folder = comparison_in(tmp_path / "two", arms=("full", "adalora", "iw-lora"))
    counted(folder, "iw-lora", 589_824, 589_824, 589_824)
    assert budgets(load(folder)) == {"adalora": 1.0, "iw-lora": 2.0}


def test_fixed_sizes_alone_have_no_budgets(
    comparison_in: Callable[..., Path], tmp_path: Path
) -> None:
    assert budgets(load(comparison_in(tmp_path / "one", arms=("full",)))) == {}
