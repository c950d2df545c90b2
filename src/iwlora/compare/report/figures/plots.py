"""Plots of scores, differences, costs and learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.report.figures import style
from iwlora.compare.statistics.bootstrap import Interval
from iwlora.compare.statistics.differences import TaskDifference
from iwlora.compare.statistics.paired_tests import Summary, summarize
from iwlora.results.comparison import Comparison
from iwlora.results.metric_direction import oriented, with_direction
from iwlora.results.run import Run, RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_POINTS = 200

Curves = Mapping[str, Sequence[Mapping[int, float]]]
"""{label: the curve {step: value} of each seed}."""


def plot_scores(comparison: Comparison) -> Figure:
    """The primary metric by arm: a point per seed, the mean and its 95% t interval.

    The axis covers the points, so the very wide interval of two seeds may be cut off.
    """
    metric = comparison.metrics[0]
    arms = [label for label in comparison.arms if comparison.scores(label)]
    scores = {label: _scaled_scores(comparison, label) for label in arms}
    figure, axes = _figure_of_rows(arms, _metric_label(metric))
    for row, (label, values) in enumerate(scores.items()):
        color, marker = _color_and_marker(comparison, label)
        axes.scatter(values, [row + 0.16] * len(values), s=16, color=color, alpha=0.55, lw=0)
        summary = summarize(values)
        _plot_interval(axes, summary, row - 0.12, color=color, linewidth=2)
        axes.plot(summary.mean, row - 0.12, marker=marker, color=color, markersize=8)
    points = [score for values in scores.values() for score in values]
    margin = 0.5 * (max(points) - min(points)) or 0.01 * display_scale(metric)
    axes.set_xlim(min(points) - margin, max(points) + margin)
    return figure


def plot_forest(differences: Sequence[TaskDifference]) -> Figure:
    """Draw the mean paired difference of each arm from the baseline and its two 95% intervals.

    The thick bar is the t interval over seeds, the thin bar the interval over seeds and examples.
    A bar that crosses the vertical line at zero is compatible with no difference.

    Args:
        differences: The arms of one task, as ``analyze`` returns them.

    Returns:
        The figure: one row per arm, in the units of the tables (points, or the metric itself).
    """
    metric, baseline = differences[0].metric, differences[0].baseline
    scale = display_scale(metric)
    x_label = _metric_label(metric, f", minus {baseline}")
    figure, axes = _figure_of_rows([arm.arm for arm in differences], x_label)
    axes.axvline(0.0, color=style.INK, linewidth=1.0)
    for row, arm in enumerate(differences):
        for interval, width in ((arm.interval, 1.2), (arm.summary, 4.0)):
            _plot_interval(axes, interval, row, scale, color=style.COLORS[0], linewidth=width)
        axes.plot(scale * arm.summary.mean, row, marker="o", color=style.COLORS[1], markersize=8)
    return figure


def read_curves(comparison: Comparison) -> dict[str, Curves]:
    """{title: curves} of the training loss and the primary metric on validation data, if logged."""
    metric = comparison.metrics[0]
    titles = {"training loss": None, f"validation {_metric_label(metric)}": metric}
    panels: dict[str, Curves] = {}
    for title, logged in titles.items():
        by_arm = {}
        for label in comparison.arms:
            curves = [_curve(run, logged) for run in comparison.of(label)]
            by_arm[label] = [curve for curve in curves if len(curve) > 1]  # a point is no curve
        if any(by_arm.values()):
            panels[title] = {label: curves for label, curves in by_arm.items() if curves}
    return panels


def plot_learning_curves(comparison: Comparison, panels: Mapping[str, Curves]) -> Figure:
    """Training loss and validation metric by step: a thin line per seed, a bold one their mean."""
    figure = style.new_figure(7.0, 3.0 * len(panels))
    for index, (title, curves) in enumerate(panels.items(), start=1):
        axes = style.new_axes(figure, len(panels), 1, index)
        axes.set_title(title, color=style.INK, fontsize=10, loc="left")
        _plot_curves(axes, comparison, curves)
    style.add_legend(figure)
    figure.axes[-1].set_xlabel("step", color=style.INK)
    return figure


_COSTS: Mapping[str, Callable[[RunResult], float | None]] = {
    "trainable parameters": lambda r: r.trainable_parameters,
    "training and measuring, s": lambda r: r.total_seconds,
    "peak memory, GiB": lambda r: (m := r.own_peak_memory_bytes) and m / 2**30,
}


def scores_by_cost(comparison: Comparison) -> dict[str, dict[str, tuple[float, float]]]:
    """{cost: {label: (mean cost, mean score)}} for each cost that two or more arms know."""
    panels = {}
    for title, cost_of in _COSTS.items():
        points = {}
        for label in comparison.arms:
            costs = [c for run in comparison.of(label) if (c := cost_of(run.result)) is not None]
            scores = _scaled_scores(comparison, label)
            if costs and scores:
                points[label] = fmean(costs), fmean(scores)
        if len(points) > 1:
            panels[title] = points
    return panels


def plot_scores_by_cost(
    comparison: Comparison, panels: Mapping[str, Mapping[str, tuple[float, float]]]
) -> Figure:
    """The primary metric against each cost: mean and 95% interval of each arm, Pareto front."""
    metric = comparison.metrics[0]
    figure = style.new_figure(7.0, 0.6 + 2.5 * len(panels))
    for index, (title, points) in enumerate(panels.items(), start=1):
        axes = style.new_axes(figure, len(panels), 1, index)
        for label, (cost, score) in points.items():
            color, marker = _color_and_marker(comparison, label)
            summary = summarize(_scaled_scores(comparison, label))
            if summary.low is not None and summary.high is not None:
                axes.plot([cost] * 2, [summary.low, summary.high], color=color, alpha=0.5)
            axes.plot(
                cost, score, color=color, marker=marker, markersize=7, linestyle="",
                label=style.escape_dollars(label),
            )  # fmt: skip
        gains = {k: (cost, oriented(metric, score)) for k, (cost, score) in points.items()}
        front = [points[label] for label in pareto_front(gains)]
        axes.plot(
            *zip(*front, strict=True), color=style.INK, linewidth=0.8, linestyle=":", zorder=0
        )
        costs = [cost for cost, _ in points.values()]
        if min(costs) > 0 and max(costs) > 20 * min(costs):
            axes.set_xscale("log")
        axes.set_xlabel(title, color=style.INK, fontsize=9)
        axes.set_ylabel(_metric_label(metric), color=style.INK, fontsize=9)
    style.add_legend(figure)
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the (cost, score) points that no other point beats at the same or less cost.

    A higher score is better.

    >>> pareto_front({"a": (1, 0.5), "b": (2, 0.6), "c": (3, 0.55)})
    ['a', 'b']
    """
    front = [
        name
        for name, (cost, score) in points.items()
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())
    ]
    return sorted(front, key=lambda name: points[name])


def _metric_label(metric: str, suffix: str = "") -> str:
    times = " (× 100)" if display_scale(metric) > 1 else ""
    return style.escape_dollars(f"{with_direction(metric)}{times}{suffix}")


def _color_and_marker(comparison: Comparison, label: str) -> tuple[str, str]:
    index = comparison.arms.index(label)
    return style.COLORS[index % len(style.COLORS)], style.MARKERS[index % len(style.MARKERS)]


def _scaled_scores(comparison: Comparison, label: str) -> list[float]:
    scale = display_scale(comparison.metrics[0])
    return [scale * score for score in comparison.scores(label).values()]


def _figure_of_rows(labels: Sequence[str], x_label: str) -> tuple[Figure, Axes]:
    """An empty figure with a row for each arm."""
    figure = style.new_figure(7.0, 1.2 + 0.55 * len(labels))
    axes = style.new_axes(figure)
    axes.set_yticks(range(len(labels)), [style.escape_dollars(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(x_label, color=style.INK)
    return figure, axes


def _plot_interval(
    axes: Axes, interval: Summary | Interval, row: float, scale: float = 1.0, **line: Any
) -> None:
    if interval.low is not None and interval.high is not None:
        ends = [scale * interval.low, scale * interval.high]
        axes.plot(ends, [row] * 2, solid_capstyle="butt", **line)


def _curve(run: Run, metric: str | None) -> dict[int, float]:
    """{step: ``metric`` on validation data}, or {step: training loss} without a metric.

    A resumed run logs some steps again: the later line counts.
    """
    scale = display_scale(metric) if metric else 1.0
    curve: dict[int, float] = {}
    for line in run.history():
        evaluated = bool(line.get("evaluation"))
        matches = evaluated and line.get("split") == "validation" if metric else not evaluated
        value = line.get(metric or "loss")
        if matches and isinstance(value, int | float) and isinstance(line.get("step"), int):
            curve[line["step"]] = scale * value
    return dict(sorted(curve.items()))


def _plot_curves(axes: Axes, comparison: Comparison, curves: Curves) -> None:
    for label, by_seed in curves.items():
        color, marker = _color_and_marker(comparison, label)
        for curve in by_seed if len(by_seed) > 1 else ():
            axes.plot(*_thin(curve), color=color, alpha=0.35, linewidth=0.8)
        shared = sorted(set.intersection(*map(set, by_seed)))
        steps, values = _thin({step: fmean(curve[step] for curve in by_seed) for step in shared})
        axes.plot(
            steps, values, color=color, linewidth=1.8, label=style.escape_dollars(label),
            marker=marker, markersize=5, markevery=max(1, len(steps) // 10),
        )  # fmt: skip


def _thin(curve: Mapping[int, float]) -> tuple[list[float], list[float]]:
    """The steps and values of at most 200 points: means over equal stretches of the curve."""
    parts = min(len(curve), _MAX_POINTS)
    points = [part.mean(0) for part in np.array_split([*curve.items()], parts)] if parts else []
    return [float(step) for step, _ in points], [float(value) for _, value in points]
