"""The path of each arm's interval over the draws of a sequential comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.report.figures import style
from iwlora.compare.statistics.differences import TaskDifference
from iwlora.compare.statistics.sequential import half_width
from iwlora.results.comparison.record import StoppingRule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_verdict_paths(differences: Sequence[TaskDifference], rule: StoppingRule) -> Figure:
    """Draw the mean difference of each arm after each draw, with its interval at all looks.

    The horizontal band holds the differences that do not matter. A path ends with its verdict: its
    interval leaves out zero, or each end of the band is ruled out.

    Args:
        differences: The arms of one task, as ``analyze`` returns them.
        rule: What the comparison promises.

    Returns:
        The figure: one panel per arm, in the units of the tables.
    """
    metric, baseline = differences[0].metric, differences[0].baseline
    scale = display_scale(metric)
    figure = style.new_figure(7.0, 0.4 + 2.0 * len(differences))
    most = max(row.summary.n for row in differences)
    for index, row in enumerate(differences, start=1):
        axes = style.new_axes(figure, len(differences), 1, index)
        values = scale * np.array([*row.differences.values()])
        draws = np.arange(1, len(values) + 1)
        means = values.cumsum() / draws
        half = half_width(values, rule.error / len(differences))
        known = np.isfinite(half)
        axes.axhspan(-rule.difference, rule.difference, color=style.COLORS[2], alpha=0.15, lw=0)
        axes.axhline(0.0, color=style.INK, linewidth=1.0)
        axes.plot(draws, values, ".", color=style.INK, alpha=0.4, markersize=5)
        axes.plot(draws, means, color=style.COLORS[1], linewidth=1.5)
        axes.fill_between(
            draws[known],
            (means - half)[known],
            (means + half)[known],
            color=style.COLORS[0],
            alpha=0.3,
            linewidth=0,
        )
        last = slice(-1, None) if known[-1] else slice(0)
        ends = (means - half)[last], (means + half)[last]
        axes.vlines(draws[last], *ends, color=style.COLORS[0], linewidth=2.0)
        # The first intervals are too wide for the rest to be read.
        reach = 1.3 * max(np.abs(values).max(), 2 * rule.difference)
        axes.set_ylim(-reach, reach)
        axes.set_xlim(0.5, most + 0.5)
        name = style.escape_dollars(row.arm)
        axes.set_title(name, color=style.INK, fontsize=9, loc="left")
        axes.set_ylabel(f"minus {style.escape_dollars(baseline)}", color=style.INK, fontsize=9)
    axes.set_xlabel("draws", color=style.INK, fontsize=9)
    return figure
