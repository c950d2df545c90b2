"""The forest plot: the paired difference of each arm from the baseline, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iwlora.compare.number_format import display_scale
from iwlora.compare.report.figures.plots import metric_label
from iwlora.compare.report.figures.style import (
    COLOURS,
    INK,
    escape_dollars,
    new_axes,
    new_figure,
)
from iwlora.compare.statistics.analysis import TaskDifference

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_forest(differences: Sequence[TaskDifference]) -> Figure:
    """Draw the mean paired difference of each arm from the baseline and its two 95% intervals.

    The thick bar is the t interval over seeds, the thin bar the interval over seeds and examples.
    A bar that crosses the vertical line at zero is compatible with no difference.

    Args:
        differences: The arms of one task, as ``analyse`` returns them.

    Returns:
        The figure: one row per arm, in the units of the tables (points, or the metric itself).
    """
    first = differences[0].paired
    scale = display_scale(first.metric)
    figure = new_figure(7.0, 1.1 + 0.45 * len(differences))
    axes = new_axes(figure)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for row, arm in enumerate(differences):
        summary, interval = arm.paired.summary, arm.interval
        for low, high, width in (
            (interval.low, interval.high, 1.2),
            (summary.low, summary.high, 4.0),
        ):
            if low is not None and high is not None:
                axes.plot(
                    [scale * low, scale * high], [row] * 2, color=COLOURS[0], linewidth=width,
                    solid_capstyle="butt",
                )  # fmt: skip
        axes.plot(scale * summary.mean, row, marker="o", color=COLOURS[1], markersize=8)
    axes.set_yticks(
        range(len(differences)), [escape_dollars(arm.paired.arm) for arm in differences]
    )
    axes.set_ylim(len(differences) - 0.5, -0.5)
    minus = escape_dollars(f", minus {first.baseline}")
    axes.set_xlabel(metric_label(first.metric) + minus, color=INK)
    return figure
