"""The forest plot: the paired difference of each arm from the baseline, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iwlora.compare.number_format import display_scale
from iwlora.compare.report.figures.plots import INK, new_axes, new_figure, plain
from iwlora.compare.statistics.analysis import Compared

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forest_plot(compared: Sequence[Compared]) -> Figure:
    """Draw the mean paired difference of each arm from the baseline and its two 95% intervals.

    The thick bar is the t interval over seeds, the thin bar the interval over seeds and examples.
    A bar that crosses the vertical line at zero is compatible with no difference.

    Args:
        compared: the arms of one task against one baseline, as ``analyse`` gives them.

    Returns:
        The figure: one row an arm, in the units of the tables (points, or the metric itself).
    """
    pair = compared[0].pair
    factor = display_scale(pair.metric)
    figure = new_figure(7.0, 1.1 + 0.45 * len(compared))
    axes = new_axes(figure)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for row, arm in enumerate(compared):
        over_seeds, over_both = arm.pair.summary, arm.both
        for low, high, width in (
            (over_both.low, over_both.high, 1.2),
            (over_seeds.low, over_seeds.high, 4.0),
        ):
            if low is not None and high is not None:
                axes.plot(
                    [factor * low, factor * high], [row] * 2, color="#0072B2", linewidth=width,
                    solid_capstyle="butt",
                )  # fmt: skip
        axes.plot(factor * over_seeds.mean, row, marker="o", color="#D55E00", markersize=8)
    axes.set_yticks(range(len(compared)), [plain(arm.pair.arm) for arm in compared])
    axes.set_ylim(len(compared) - 0.5, -0.5)
    unit = f"{pair.metric} (× 100)" if factor > 1 else pair.metric
    axes.set_xlabel(plain(f"{unit}, minus {pair.baseline}"), color=INK)
    return figure
