"""Figures show what was measured: their marks are read back, not only drawn."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.report.figures.heatmaps import (
    importance_heatmap,
    most_important,
    shares,
    text_heatmap,
)
from iwlora.compare.report.figures.plots import learning_curves, metric_by_arm, save
from iwlora.results.loading import load
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity


def contrast(one: float, other: float) -> float:
    light, dark = max(one, other), min(one, other)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: tuple[float, float, float]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_shares_sum_to_one_and_are_proportional(sensitivity: Sensitivity) -> None:
    values, part = sensitivity.values, shares(sensitivity)
    assert sum(part.values()) == pytest.approx(1.0)
    one, other = list(values)[:2]
    assert part[one] / part[other] == pytest.approx(values[one] / values[other])
    assert most_important(sensitivity, 1)[0][0] == max(values, key=values.__getitem__)
    zero = replace(sensitivity, sites=tuple(replace(s, value=0.0) for s in sensitivity.sites))
    assert set(shares(zero).values()) == {0.0}
    assert "0.0" in text_heatmap(zero)
    assert importance_heatmap(zero).axes


def test_the_heatmap_annotates_each_cell_legibly(sensitivity: Sensitivity) -> None:
    axes = importance_heatmap(sensitivity).axes[0]
    mesh = axes.collections[0]
    written = {(t.get_position()): t for t in axes.texts if t.get_text()}
    part = shares(sensitivity)
    kinds = [label.get_text() for label in axes.get_xticklabels()]
    assert len(written) == len(sensitivity.sites)
    for site in sensitivity.sites:
        text = written[(kinds.index(site.kind) + 0.5, site.depth + 0.5)]
        assert text.get_text() == f"{100 * part[site.name]:.1f}"
        red, green, blue, _ = mesh.to_rgba(100 * part[site.name])
        ink = 0.0 if text.get_color() == "black" else 1.0
        assert contrast(luminance((red, green, blue)), ink) >= 4.5


def test_the_heatmap_tells_what_the_top_matrices_hold(sensitivity: Sensitivity) -> None:
    part = sorted(shares(sensitivity).values(), reverse=True)
    title = importance_heatmap(sensitivity).axes[0].get_title(loc="left")
    assert f"the top 4 of 36 matrices hold {sum(part[:4]):.1%}" in title


def test_a_site_that_does_not_exist_leaves_its_cell_blank(sensitivity: Sensitivity) -> None:
    fewer = replace(sensitivity, sites=sensitivity.sites[1:])
    axes = importance_heatmap(fewer).axes[0]
    mask = np.ma.getmaskarray(axes.collections[0].get_array())
    assert mask.sum() == 1
    assert len([t for t in axes.texts if t.get_text()]) == 35
    kinds = [label.get_text() for label in axes.get_xticklabels()]
    assert mask[0, kinds.index("query")]
    row = next(line for line in text_heatmap(fewer).splitlines() if line.startswith("    0"))
    assert len(re.findall(r"\d+\.\d", row)) == 5


def test_experts_of_one_kind_share_a_cell() -> None:
    sites = [
        SiteSensitivity(f"layer.0.experts.{i}.up", "ffn_up", 0, 4, 4, 1.0, 0.0) for i in range(4)
    ]
    sites.append(SiteSensitivity("layer.1.query", "query", 1, 4, 4, 4.0, 0.0))
    text = text_heatmap(Sensitivity(tuple(sites), "exact", 8, 0.0, True, 1.0))
    assert text.count("50.0") == 3  # two cells, and the largest site by name


@pytest.mark.parametrize("columns", [1, 6, 14, 40])
def test_the_text_heatmap_is_whole_and_narrow(
    sensitivity_of: Callable[..., Sensitivity], columns: int
) -> None:
    kinds = [f"decoder_part_{'x' * (i % 30)}{i}" for i in range(columns)]
    sensitivity = sensitivity_of(3, kinds)
    text = text_heatmap(sensitivity)
    assert max(map(len, text.splitlines())) <= 100
    found = re.findall(r"[░▒▓█]{3} *(\d+\.\d)", text)
    assert sorted(map(float, found)) == pytest.approx(
        sorted(round(100 * share, 1) for share in shares(sensitivity).values())
    )


def test_the_shade_grows_with_the_share(sensitivity: Sensitivity) -> None:
    cells = re.findall(r"([░▒▓█]){3} *(\d+\.\d)", text_heatmap(sensitivity))
    cells.sort(key=lambda cell: float(cell[1]))
    order = ["░▒▓█".index(shade) for shade, _ in cells]
    assert order == sorted(order)
    assert order[-1] == 3


def test_each_seed_and_the_mean_are_in_the_metric_figure(folder: Path) -> None:
    comparison = load(folder)
    axes = metric_by_arm(comparison).axes[0]
    for row, label in enumerate(comparison.arms):
        values = [100 * v for v in comparison.values(label, "accuracy").values()]
        dots = np.asarray(axes.collections[row].get_offsets())[:, 0]
        assert list(dots) == pytest.approx(values)
        interval, mean = axes.lines[2 * row], axes.lines[2 * row + 1]
        assert np.asarray(mean.get_xdata())[0] == pytest.approx(np.mean(values))
        assert np.mean(np.asarray(interval.get_xdata())) == pytest.approx(np.mean(values))
    assert len({line.get_marker() for line in axes.lines[1::2]}) == 4


def test_learning_curves_hold_the_mean_over_seeds(folder: Path) -> None:
    comparison = load(folder)
    figure = learning_curves(comparison)
    assert figure is not None
    loss, accuracy = figure.axes
    assert len(loss.lines) == len(accuracy.lines) == 4 * (3 + 1)
    bold = next(line for line in accuracy.lines if line.get_label() == "lora")
    assert list(np.asarray(bold.get_xdata())) == [78, 156, 234]
    final = np.mean(list(comparison.values("lora", "accuracy").values()))
    assert np.asarray(bold.get_ydata())[-1] == pytest.approx(100 * final)


def test_a_repeated_step_counts_once_and_long_logs_are_thinned(folder: Path) -> None:
    run = folder / "lora" / "seed-0"
    lines = [{"step": step, "loss": 9.0} for step in range(1, 3001)]
    lines += [{"step": step, "loss": 1.0} for step in range(1, 3001)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    figure = learning_curves(load(run))
    assert figure is not None
    (axes,) = figure.axes  # nothing was evaluated: no second panel, and no room for one
    figure.draw_without_rendering()
    assert axes.get_position().height > 0.6
    values = np.asarray(axes.lines[0].get_ydata())
    assert len(values) == 200
    assert set(values) == {1.0}


def test_without_logs_there_are_no_curves(folder: Path) -> None:
    run = folder / "lora" / "seed-0"
    (run / "metrics.jsonl").unlink()
    assert learning_curves(load(run)) is None


def test_files_are_equal_byte_by_byte_and_carry_no_date(
    tmp_path: Path, sensitivity: Sensitivity
) -> None:
    one = save(importance_heatmap(sensitivity), tmp_path / "a" / "one.v1")
    two = save(importance_heatmap(sensitivity), tmp_path / "two")
    assert [path.name for path in one] == ["one.v1.png", "one.v1.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
    svg = one[1].read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "dc:date" not in svg
    assert "prefers-color-scheme: dark" in svg
    assert "<image" not in svg
    other = replace(sensitivity, sites=sensitivity.sites[1:])
    assert save(importance_heatmap(other), tmp_path / "other")[1].read_text() != svg


def test_dollar_signs_in_names_are_only_dollar_signs(
    tmp_path: Path, sensitivity_of: Callable[..., Sensitivity]
) -> None:
    figure = importance_heatmap(sensitivity_of(2, ["$\\frac$", "costs $5", "a\\$b"]))
    png, _ = save(figure, tmp_path / "figure")
    assert png.stat().st_size > 1000
