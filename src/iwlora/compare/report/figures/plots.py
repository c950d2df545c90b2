"""Figures of scores, costs and learning; matplotlib's object API, imported when one is drawn."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.paired_tests import summarise
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run, RunResult
from iwlora.results.writing import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black and yellow: told apart under colour blindness, and
# readable on white as on near-black. Markers differ too, so that colour is never alone.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, INK_ON_DARK = "#1f2328", "#e6edf3"
_MAX_POINTS = 200


def plain(text: str) -> str:
    """``text`` without the meaning that matplotlib gives to dollar signs."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", hspace=0.08)
    return figure


def new_axes(figure: Figure, rows: int = 1, index: int = 1, place: Any = None) -> Axes:
    """An empty panel, with the ink and the grid that all figures have."""
    axes = figure.add_subplot(rows, 1, index) if place is None else figure.add_subplot(place)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(color="#8b949e", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _style(comparison: Comparison, label: str) -> tuple[str, str]:
    index = comparison.arms.index(label)
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _series(run: Run, metric: str | None) -> dict[int, float]:
    """{step: training loss}, or {step: ``metric`` on the validation split} when one is named.

    A resumed run logs some steps again: the later line counts.
    """
    series: dict[int, float] = {}
    for line in run.history():
        evaluated = bool(line.get("evaluation"))
        wanted = evaluated and line.get("split") == "validation" if metric else not evaluated
        value = line.get(metric or "loss")
        if wanted and isinstance(value, int | float) and isinstance(line.get("step"), int):
            series[line["step"]] = float(value)
    return dict(sorted(series.items()))


def _thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most 200 points: means over equal stretches of the log."""
    parts = min(len(steps), _MAX_POINTS)
    return (
        [float(np.mean(part)) for part in np.array_split(steps, parts)] if parts else [],
        [float(np.mean(part)) for part in np.array_split(values, parts)] if parts else [],
    )


def _curves(axes: Axes, comparison: Comparison, metric: str | None) -> bool:
    """Draw a thin line for each seed and a bold mean over seeds; say whether there was any."""
    factor = display_scale(metric) if metric else 1.0
    drawn = False
    for label in comparison.arms:
        colour, marker = _style(comparison, label)
        series = [found for run in comparison.of(label) if (found := _series(run, metric))]
        if not series:
            continue
        drawn = True
        for one in series if len(series) > 1 else ():
            steps, values = _thin(list(one), [factor * value for value in one.values()])
            axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8)
        common = sorted(set.intersection(*(set(one) for one in series)))
        mean = [factor * math.fsum(one[step] for one in series) / len(series) for step in common]
        steps, values = _thin(common, mean)
        axes.plot(
            steps, values, color=colour, linewidth=1.8, label=plain(label),
            marker=marker, markersize=5, markevery=max(1, len(steps) // 10),
        )  # fmt: skip
    return drawn


def learning_curves(comparison: Comparison) -> Figure | None:
    """Training loss, and the primary metric on validation data, by step; None without logs."""
    metric = comparison.metrics[0]
    panels: list[tuple[str | None, str]] = [(None, "training loss"), (metric, _axis_title(metric))]
    figure = new_figure(7.0, 6.0)
    drawn = []
    for index, (name, title) in enumerate(panels, start=1):
        axes = new_axes(figure, 2, index)
        axes.set_title(
            title if name is None else f"validation {title}", color=INK, fontsize=10, loc="left"
        )
        if _curves(axes, comparison, name):
            drawn.append(axes)
        else:
            axes.remove()
    if not drawn:
        return None
    if len(drawn) < len(panels):  # the one that there is has the figure to itself
        figure.set_size_inches(7.0, 3.0)
        drawn[0].set_subplotspec(figure.add_gridspec(1, 1)[0])
    drawn[-1].set_xlabel("step", color=INK)
    drawn[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _axis_title(metric: str) -> str:
    return plain(f"{metric} (× 100)" if display_scale(metric) > 1 else metric)


def metric_by_arm(comparison: Comparison) -> Figure:
    """The primary metric: a point for each seed, the mean, and its 95% t interval, by arm.

    The axis follows the points, so the very wide interval of two seeds may run off the figure.
    """
    metric = comparison.metrics[0]
    labels = [label for label in comparison.arms if comparison.of(label)]
    points = [
        display_scale(metric) * v
        for label in labels
        for v in comparison.values(label, metric).values()
    ]
    figure = new_figure(7.0, 1.2 + 0.55 * len(labels))
    axes = new_axes(figure)
    for row, label in enumerate(labels):
        colour, marker = _style(comparison, label)
        values = [display_scale(metric) * v for v in comparison.values(label, metric).values()]
        axes.scatter(values, [row + 0.16] * len(values), s=16, color=colour, alpha=0.55, lw=0)
        summary = summarise(values)
        if summary.low is not None and summary.high is not None:
            axes.plot([summary.low, summary.high], [row - 0.12] * 2, color=colour, linewidth=2)
        axes.plot(summary.mean, row - 0.12, marker=marker, color=colour, markersize=8)
    axes.set_yticks(range(len(labels)), [plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    margin = 0.5 * (max(points) - min(points)) or 0.01 * display_scale(metric)
    axes.set_xlim(min(points) - margin, max(points) + margin)
    axes.set_xlabel(_axis_title(metric), color=INK)
    return figure


def _seconds(result: RunResult) -> float | None:
    """Training and measuring: what an arm costs in time."""
    if result.train_seconds is None or result.resumed_at_step:
        return None
    return result.train_seconds + (result.measure_seconds or 0.0)


_PRICES: tuple[tuple[str, Callable[[RunResult], float | None]], ...] = (
    ("trainable parameters", lambda result: result.trainable_parameters),
    ("training and measuring, s", _seconds),
    (
        "peak memory, GiB",
        lambda result: result.peak_memory_bytes and result.peak_memory_bytes / 2**30,
    ),
)


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of (cost, quality) points that none costs less than and is as good as.

    >>> front({"a": (1, 0.5), "b": (2, 0.6), "c": (3, 0.55)})
    ['a', 'b']
    """
    best = [
        name
        for name, (cost, quality) in points.items()
        if not any(
            other != name and c <= cost and q >= quality and (c, q) != (cost, quality)
            for other, (c, q) in points.items()
        )
    ]
    return sorted(best, key=lambda name: points[name])


def quality_by_cost(comparison: Comparison) -> Figure | None:
    """The primary metric against parameters, time and memory: a mean and its 95% interval an arm.

    A line joins the arms that no other beats at the same cost or less. None where no cost is
    known.
    """
    metric = comparison.metrics[0]
    factor = display_scale(metric)
    panels = []
    for title, price in _PRICES:
        found: dict[str, tuple[float, float]] = {}
        for label in comparison.arms:
            runs = [run.result for run in comparison.of(label) if metric in run.result.metrics]
            costs = [cost for result in runs if (cost := price(result)) is not None]
            if costs:
                mean = math.fsum(result.metrics[metric] for result in runs) / len(runs)
                found[label] = math.fsum(costs) / len(costs), factor * mean
        if len(found) > 1:
            panels.append((title, found))
    if not panels:
        return None
    figure = new_figure(7.0, 0.6 + 2.5 * len(panels))
    for index, (title, found) in enumerate(panels, start=1):
        axes = new_axes(figure, len(panels), index)
        for label, (cost, quality) in found.items():
            colour, marker = _style(comparison, label)
            summary = summarise([factor * v for v in comparison.values(label, metric).values()])
            if summary.low is not None and summary.high is not None:
                axes.plot([cost] * 2, [summary.low, summary.high], color=colour, alpha=0.5)
            axes.plot(
                cost, quality, color=colour, marker=marker, markersize=7, linestyle="",
                label=plain(label),
            )  # fmt: skip
        line = [found[name] for name in front(found)]
        axes.plot(*zip(*line, strict=True), color=INK, linewidth=0.8, linestyle=":", zorder=0)
        costs = [cost for cost, _ in found.values()]
        if min(costs) > 0 and max(costs) > 20 * min(costs):
            axes.set_xscale("log")
        axes.set_xlabel(title, color=INK, fontsize=9)
        axes.set_ylabel(_axis_title(metric), color=INK, fontsize=9)
        if index == 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
    return figure


def save(figure: Figure, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.svg; equal figures give equal bytes.

    The PNG is on white; the SVG is transparent and turns its ink light in a dark scheme.
    """
    from matplotlib import rc_context

    png, svg = (Path(f"{os.fspath(stem)}.{kind}") for kind in ("png", "svg"))
    with replacing(png) as new:
        figure.savefig(new, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    drawing = io.StringIO()
    with rc_context({"svg.hashsalt": "iwlora", "svg.fonttype": "path"}):
        figure.savefig(
            drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    dark = "".join(
        f'[style*="{paint}: {INK}"]{{{paint}:{INK_ON_DARK} !important}}'
        for paint in ("fill", "stroke")
    )
    head, defs, rest = drawing.getvalue().partition("<defs>")
    style = f'<style type="text/css">@media (prefers-color-scheme: dark){{{dark}}}</style>'
    write_text(svg, f"{head}{style}{defs}{rest}")
    return png, svg
