"""Plots show what was measured: their marks are read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.report.figures.plots import (
    pareto_front,
    plot_forest,
    plot_learning_curves,
    plot_scores,
    plot_scores_by_cost,
    read_curves,
    scores_by_cost,
)
from iwlora.compare.report.figures.report_figures import report_figures
from iwlora.compare.statistics.analysis import analyze
from iwlora.results.comparison import load

pytestmark = pytest.mark.quick


def test_each_seed_and_the_mean_are_in_the_metric_figure(folder: Path) -> None:
    comparison = load(folder)
    axes = plot_scores(comparison).axes[0]
    for row, label in enumerate(comparison.arms):
        values = [100 * v for v in comparison.values(label, "accuracy").values()]
        dots = np.asarray(axes.collections[row].get_offsets())[:, 0]
        assert list(dots) == pytest.approx(values)
        interval, mean = axes.lines[2 * row], axes.lines[2 * row + 1]
        assert np.asarray(mean.get_xdata())[0] == pytest.approx(np.mean(values))
        assert np.mean(np.asarray(interval.get_xdata())) == pytest.approx(np.mean(values))
    assert len({line.get_marker() for line in axes.lines[1::2]}) == 4


def test_a_mark_is_the_mean_difference_and_a_bar_its_interval(folder: Path) -> None:
    comparison = load(folder)
    differences = analyze([comparison]).tasks[0].differences
    metric, baseline = comparison.metrics[0], differences[0].baseline
    axes = plot_forest(differences).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        arm.arm for arm in differences
    ]
    base = comparison.values(baseline, metric)
    for row, arm in enumerate(differences):
        scores = comparison.values(arm.arm, metric)
        expected = [100 * (scores[seed] - base[seed]) for seed in scores if seed in base]
        mean = sum(expected) / len(expected)
        lines = [line for line in axes.lines if list(line.get_ydata()) in ([row], [row, row])]
        (mark,) = [line for line in lines if len(line.get_xdata()) == 1]
        assert mark.get_xdata()[0] == pytest.approx(mean)
        low, high = arm.summary.low, arm.summary.high
        assert low is not None
        assert high is not None
        assert any(
            list(line.get_xdata()) == pytest.approx([100 * low, 100 * high]) for line in lines
        )
    (zero,) = [line for line in axes.lines if list(line.get_xdata()) == [0.0, 0.0]]
    assert zero.get_linestyle() == "-"


def test_a_report_has_it_if_there_is_an_interval(folder: Path) -> None:
    def stems(path: Path) -> list[str]:
        (task,) = analyze([load(path)]).tasks
        return [figure.stem for figure in report_figures(task, {})]

    assert "differences" in stems(folder)
    for seed in (1, 2):
        (folder / "lora" / f"seed-{seed}" / "result.json").unlink()
    assert "differences" not in stems(folder), "one shared seed has no interval"


def test_learning_curves_hold_the_mean_over_seeds(folder: Path) -> None:
    comparison = load(folder)
    figure = plot_learning_curves(comparison, read_curves(comparison))
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
    comparison = load(run)
    figure = plot_learning_curves(comparison, read_curves(comparison))
    (axes,) = figure.axes  # nothing was evaluated: no second panel, and no room for one
    figure.draw_without_rendering()
    assert axes.get_position().height > 0.6
    values = np.asarray(axes.lines[0].get_ydata())
    assert len(values) == 200
    assert set(values) == {1.0}


def test_a_single_point_is_no_curve(folder: Path) -> None:
    for run in folder.glob("*/seed-*"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        kept = [line for line in lines if not line.get("evaluation") or line["epoch"] == 3]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, kept)))
    assert [*read_curves(load(folder))] == ["training loss"]


@pytest.mark.parametrize("length", [4, 30, 90])
def test_the_legend_is_above_the_data_and_inside_the_figure(folder: Path, length: int) -> None:
    comparison = load(folder)
    names = {label: label.ljust(length, "x") for label in comparison.arms}
    runs = tuple(run.relabeled(names[run.result.label]) for run in comparison.runs)
    long = replace(comparison, arms=tuple(names.values()), runs=runs)
    figure = plot_learning_curves(long, read_curves(long))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert all(box.y0 >= axes.get_window_extent().y1 for axes in figure.axes)


def test_without_logs_there_are_no_curves(folder: Path) -> None:
    run = folder / "lora" / "seed-0"
    (run / "metrics.jsonl").unlink()
    assert read_curves(load(run)) == {}


def test_the_pareto_front_joins_the_points_that_none_beats() -> None:
    points = {"a": (1.0, 0.5), "b": (2.0, 0.7), "c": (2.0, 0.6), "d": (3.0, 0.7), "e": (4.0, 0.9)}
    assert pareto_front(points) == ["a", "b", "e"]
    assert pareto_front({"a": (1.0, 0.5), "b": (1.0, 0.5)}) == ["a", "b"]


def test_known_costs_are_drawn(tmp_path: Path, comparison_in: Callable[..., Path]) -> None:
    folder = comparison_in(tmp_path / "c", seeds=2, other_runs=7)
    comparison = load(folder)
    figure = plot_scores_by_cost(comparison, scores_by_cost(comparison))
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "trainable parameters",
        "training and measuring, s",
    ]
    marks = {line.get_label(): line for line in figure.axes[1].get_lines()}
    iw = comparison.of("iw-lora")
    cost = np.mean([run.result.train_seconds + run.result.measure_seconds for run in iw])  # type: ignore[operator]
    assert marks["iw-lora"].get_xdata()[0] == pytest.approx(cost), "measuring is charged"
