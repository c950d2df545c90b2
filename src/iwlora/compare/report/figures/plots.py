"""Plots of scores, costs and learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.report.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    escape_dollars,
    new_axes,
    new_figure,
)
from iwlora.compare.statistics.paired_tests import summarise
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run, RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_POINTS = 200

Curves = Mapping[str, Sequence[Mapping[int, float]]]
"""{label: the curve {step: value} of each seed}."""


def metric_label(metric: str) -> str:
    """The label of an axis that shows a metric."""
    return escape_dollars(f"{metric} (× 100)" if display_scale(metric) > 1 else metric)


def plot_scores(comparison: Comparison) -> Figure:
    """The primary metric by arm: a point per seed, the mean and its 95% t interval.

    The axis covers the points, so the very wide interval of two seeds may be cut off.
    """
    metric = comparison.metrics[0]
    labels = [label for label in comparison.arms if comparison.of(label)]
    scores = {label: _scaled_scores(comparison, label) for label in labels}
    points = [score for values in scores.values() for score in values]
    figure = new_figure(7.0, 1.2 + 0.55 * len(labels))
    axes = new_axes(figure)
    for row, (label, values) in enumerate(scores.items()):
        colour, marker = _style(comparison, label)
        axes.scatter(values, [row + 0.16] * len(values), s=16, color=colour, alpha=0.55, lw=0)
        summary = summarise(values)
        if summary.low is not None and summary.high is not None:
            axes.plot([summary.low, summary.high], [row - 0.12] * 2, color=colour, linewidth=2)
        axes.plot(summary.mean, row - 0.12, marker=marker, color=colour, markersize=8)
    axes.set_yticks(range(len(labels)), [escape_dollars(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    margin = 0.5 * (max(points) - min(points)) or 0.01 * display_scale(metric)
    axes.set_xlim(min(points) - margin, max(points) + margin)
    axes.set_xlabel(metric_label(metric), color=INK)
    return figure


def read_curves(comparison: Comparison) -> tuple[Curves, Curves]:
    """The training loss and the primary metric on validation data, from the logs of the runs."""
    metric = comparison.metrics[0]
    loss, validation = (
        {
            label: curves
            for label in comparison.arms
            if (curves := [c for run in comparison.of(label) if (c := _curve(run, logged))])
        }
        for logged in (None, metric)
    )
    return loss, validation


def plot_learning_curves(comparison: Comparison, loss: Curves, validation: Curves) -> Figure:
    """Training loss and validation metric by step: a thin line per seed, a bold one their mean."""
    metric = comparison.metrics[0]
    panels = [
        (title, curves, scale)
        for title, curves, scale in (
            ("training loss", loss, 1.0),
            (f"validation {metric_label(metric)}", validation, display_scale(metric)),
        )
        if curves
    ]
    figure = new_figure(7.0, 3.0 * len(panels))
    for index, (title, curves, scale) in enumerate(panels, start=1):
        axes = new_axes(figure, len(panels), 1, index)
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        _plot_curves(axes, comparison, curves, scale)
        if index == 1:
            axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        if index == len(panels):
            axes.set_xlabel("step", color=INK)
    return figure


def _train_and_measure_seconds(result: RunResult) -> float | None:
    if result.train_seconds is None or result.resumed_at_step:
        return None
    return result.train_seconds + (result.measure_seconds or 0.0)


_COSTS: Mapping[str, Callable[[RunResult], float | None]] = {
    "trainable parameters": lambda result: result.trainable_parameters,
    "training and measuring, s": _train_and_measure_seconds,
    "peak memory, GiB": lambda result: (
        result.peak_memory_bytes and result.peak_memory_bytes / 2**30
    ),
}


def scores_by_cost(comparison: Comparison) -> dict[str, dict[str, tuple[float, float]]]:
    """{cost: {label: (mean cost, mean score)}} for each cost that two or more arms know."""
    metric = comparison.metrics[0]
    panels = {}
    for title, cost_of in _COSTS.items():
        points: dict[str, tuple[float, float]] = {}
        for label in comparison.arms:
            runs = [run.result for run in comparison.of(label) if metric in run.result.metrics]
            costs = [cost for result in runs if (cost := cost_of(result)) is not None]
            if costs:
                scores = _scaled_scores(comparison, label)
                points[label] = math.fsum(costs) / len(costs), math.fsum(scores) / len(scores)
        if len(points) > 1:
            panels[title] = points
    return panels


def plot_scores_by_cost(
    comparison: Comparison, panels: Mapping[str, Mapping[str, tuple[float, float]]]
) -> Figure:
    """The primary metric against each cost: mean and 95% interval of each arm, Pareto front."""
    metric = comparison.metrics[0]
    figure = new_figure(7.0, 0.6 + 2.5 * len(panels))
    for index, (title, points) in enumerate(panels.items(), start=1):
        axes = new_axes(figure, len(panels), 1, index)
        for label, (cost, score) in points.items():
            colour, marker = _style(comparison, label)
            summary = summarise(_scaled_scores(comparison, label))
            if summary.low is not None and summary.high is not None:
                axes.plot([cost] * 2, [summary.low, summary.high], color=colour, alpha=0.5)
            axes.plot(
                cost, score, color=colour, marker=marker, markersize=7, linestyle="",
                label=escape_dollars(label),
            )  # fmt: skip
        front = [points[label] for label in pareto_front(points)]
        axes.plot(*zip(*front, strict=True), color=INK, linewidth=0.8, linestyle=":", zorder=0)
        costs = [cost for cost, _ in points.values()]
        if min(costs) > 0 and max(costs) > 20 * min(costs):
            axes.set_xscale("log")
        axes.set_xlabel(title, color=INK, fontsize=9)
        axes.set_ylabel(metric_label(metric), color=INK, fontsize=9)
        if index == 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the (cost, score) points that no other point beats at the same or less cost.

    >>> pareto_front({"a": (1, 0.5), "b": (2, 0.6), "c": (3, 0.55)})
    ['a', 'b']
    """
    front = [
        name
        for name, (cost, score) in points.items()
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())
    ]
    return sorted(front, key=lambda name: points[name])


def _style(comparison: Comparison, label: str) -> tuple[str, str]:
    index = comparison.arms.index(label)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _scaled_scores(comparison: Comparison, label: str) -> list[float]:
    metric = comparison.metrics[0]
    return [display_scale(metric) * v for v in comparison.values(label, metric).values()]


def _curve(run: Run, metric: str | None) -> dict[int, float]:
    """{step: ``metric`` on validation data}, or {step: training loss} without a metric.

    A resumed run logs some steps again: the later line counts.
    """
    curve: dict[int, float] = {}
    for line in run.history():
        evaluated = bool(line.get("evaluation"))
        matches = evaluated and line.get("split") == "validation" if metric else not evaluated
        value = line.get(metric or "loss")
        if matches and isinstance(value, int | float) and isinstance(line.get("step"), int):
            curve[line["step"]] = float(value)
    return dict(sorted(curve.items()))


def _plot_curves(axes: Axes, comparison: Comparison, curves: Curves, scale: float) -> None:
    for label, by_seed in curves.items():
        colour, marker = _style(comparison, label)
        for curve in by_seed if len(by_seed) > 1 else ():
            steps, values = _thin(list(curve), [scale * value for value in curve.values()])
            axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8)
        shared = sorted(set.intersection(*(set(curve) for curve in by_seed)))
        mean = [scale * math.fsum(c[step] for c in by_seed) / len(by_seed) for step in shared]
        steps, values = _thin(shared, mean)
        axes.plot(
            steps, values, color=colour, linewidth=1.8, label=escape_dollars(label),
            marker=marker, markersize=5, markevery=max(1, len(steps) // 10),
        )  # fmt: skip


def _thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most 200 points: means over equal stretches of the log."""
    parts = min(len(steps), _MAX_POINTS)
    return (
        [float(np.mean(part)) for part in np.array_split(steps, parts)] if parts else [],
        [float(np.mean(part)) for part in np.array_split(values, parts)] if parts else [],
    )
