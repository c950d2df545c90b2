"""Heatmaps show what was measured: their cells are read back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import iwlora
from iwlora.compare.report.figures.heatmaps import (
    importance_cells,
    importance_shares,
    most_important,
    plot_importance,
    text_heatmap,
)
from iwlora.compare.report.figures.style import save_figure
from iwlora.methods.tiny_models import tiny_batch, tiny_model
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity

pytestmark = pytest.mark.quick


def contrast(one: float, other: float) -> float:
    light, dark = max(one, other), min(one, other)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: tuple[float, float, float]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_shares_sum_to_one_and_are_proportional(sensitivity: Sensitivity) -> None:
    values, part = sensitivity.values, importance_shares(sensitivity)
    assert sum(part.values()) == pytest.approx(1.0)
    one, other = list(values)[:2]
    assert part[one] / part[other] == pytest.approx(values[one] / values[other])
    assert most_important(sensitivity, 1)[0][0] == max(values, key=values.__getitem__)
    zero = replace(sensitivity, sites=tuple(replace(s, value=0.0) for s in sensitivity.sites))
    assert set(importance_shares(zero).values()) == {0.0}
    assert "0.0" in text_heatmap(zero)
    assert plot_importance(zero).axes


def test_the_heatmap_annotates_each_cell_legibly(sensitivity: Sensitivity) -> None:
    axes = plot_importance(sensitivity).axes[0]
    mesh = axes.collections[0]
    written = {(t.get_position()): t for t in axes.texts if t.get_text()}
    part = importance_shares(sensitivity)
    kinds = [label.get_text() for label in axes.get_xticklabels()]
    assert len(written) == len(sensitivity.sites)
    for site in sensitivity.sites:
        text = written[(kinds.index(site.kind) + 0.5, site.depth + 0.5)]
        assert text.get_text() == f"{100 * part[site.name]:.1f}"
        red, green, blue, _ = mesh.to_rgba(100 * part[site.name])
        ink = 0.0 if text.get_color() == "black" else 1.0
        assert contrast(luminance((red, green, blue)), ink) >= 4.5


def test_a_bar_says_which_color_is_which_share(sensitivity: Sensitivity) -> None:
    axes, bar = plot_importance(sensitivity).axes
    largest = 100 * max(importance_shares(sensitivity).values())
    assert bar.get_ylim() == pytest.approx((0.0, largest))
    assert bar.get_window_extent().x0 > axes.get_window_extent().x1, "beside the map"


def test_the_title_has_the_share_of_the_top_matrices(sensitivity: Sensitivity) -> None:
    part = sorted(importance_shares(sensitivity).values(), reverse=True)
    title = plot_importance(sensitivity).axes[0].get_title(loc="left")
    assert f"the top 4 of 36 matrices hold {sum(part[:4]):.1%}" in title


def test_a_site_that_does_not_exist_leaves_its_cell_blank(sensitivity: Sensitivity) -> None:
    fewer = replace(sensitivity, sites=sensitivity.sites[1:])
    axes = plot_importance(fewer).axes[0]
    mask = np.ma.getmaskarray(axes.collections[0].get_array())
    assert mask.sum() == 1
    assert len([t for t in axes.texts if t.get_text()]) == 35
    kinds = [label.get_text() for label in axes.get_xticklabels()]
    assert mask[0, kinds.index("query")]
    row = next(line for line in text_heatmap(fewer).splitlines() if line.startswith("    0"))
    assert len(re.findall(r"\d+\.\d", row)) == 5


def test_experts_of_one_type_share_a_cell() -> None:
    sites = [
        SiteSensitivity(f"layer.0.experts.{i}.up", "ffn_up", 0, 4, 4, 1.0, 0.0) for i in range(4)
    ]
    sites.append(SiteSensitivity("layer.1.query", "query", 1, 4, 4, 4.0, 0.0))
    text = text_heatmap(Sensitivity(tuple(sites), "exact", 8, 0.0, True, 1.0))
    assert text.count("50.0") == 3  # two cells, and the largest site by name


@pytest.mark.parametrize("columns", [1, 6, 14, 40])
def test_the_text_heatmap_is_complete_and_narrow(
    sensitivity_of: Callable[..., Sensitivity], columns: int
) -> None:
    kinds = [f"decoder_part_{'x' * (i % 30)}{i}" for i in range(columns)]
    sensitivity = sensitivity_of(3, kinds)
    text = text_heatmap(sensitivity)
    assert max(map(len, text.splitlines())) <= 100
    percentages = re.findall(r"[░▒▓█]{3} *(\d+\.\d)", text)
    assert sorted(map(float, percentages)) == pytest.approx(
        sorted(round(100 * share, 1) for share in importance_shares(sensitivity).values())
    )


def test_the_shade_grows_with_the_share(sensitivity: Sensitivity) -> None:
    cells = re.findall(r"([░▒▓█]){3} *(\d+\.\d)", text_heatmap(sensitivity))
    cells.sort(key=lambda cell: float(cell[1]))
    order = ["░▒▓█".index(shade) for shade, _ in cells]
    assert order == sorted(order)
    assert order[-1] == 3


def test_dollar_signs_in_names_are_only_dollar_signs(
    tmp_path: Path, sensitivity_of: Callable[..., Sensitivity]
) -> None:
    figure = plot_importance(sensitivity_of(2, ["$\\frac$", "costs $5", "a\\$b"]))
    png, _ = save_figure(figure, tmp_path / "figure")
    assert png.stat().st_size > 1000


def place_of_projection(name: str) -> int:
    """Of ``….query`` or ``….q_proj`` among query, key and value."""
    return "qkv".index(name.rpartition(".")[2][0])


@pytest.mark.parametrize("architecture", ["vit", "dinov2", "swin", "beit", "convnext"])
def test_the_map_of_an_image_model_has_its_blocks(architecture: str) -> None:
    """Rows are numbered in the order of the forward pass, over all stages; each cell is the share
    of the layers that transformers calls by these names."""
    model = tiny_model(architecture, blocks=3)
    measured = iwlora.measure(model, [tiny_batch(architecture)], estimator="exact")
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    model(**tiny_batch(architecture))
    for hook in hooks:
        hook.remove()
    called = [name for name in order if name in measured.values]
    kinds = ["ffn_up", "ffn_down"]
    if architecture != "convnext":
        kinds = ["query", "key", "value", "attention_output", *kinds]
        for block in range(0, len(called), len(kinds)):  # versions call these in different orders
            called[block : block + 3] = sorted(called[block : block + 3], key=place_of_projection)
    total = sum(measured.values.values())
    cells = importance_cells(measured)
    assert len(called) == 3 * len(kinds) == len(cells)
    assert sum(cells.values()) == pytest.approx(100)
    for place, name in enumerate(called):
        cell = (place // len(kinds), kinds[place % len(kinds)])
        assert cells[cell] == pytest.approx(100 * measured.values[name] / total)
