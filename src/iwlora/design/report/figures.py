"""The figures of a search: how the scores of choices are distributed, and effects of strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from iwlora.compare.number_format import as_printed
from iwlora.compare.report.figures import style
from iwlora.results.comparison.designs import EffectSummary, StageSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_distributions(stage: StageSummary, metric: str) -> Figure:
    """For each choice the share of its designs that score at most so much."""
    figure = style.new_figure(7.0, 3.6)
    axes = style.new_axes(figure)
    for index, choice in enumerate(stage.choices):
        scores = sorted(
            as_printed(metric, run.score)
            for run in stage.runs
            if run.choice == choice.label and run.score is not None
        )
        if not scores:
            continue
        dashes = ("-", "--", ":", "-.")[index // len(style.COLORS) % 4]
        axes.step(
            [scores[0], *scores],
            np.arange(len(scores) + 1) / len(scores),
            where="post",
            color=style.COLORS[index % len(style.COLORS)],
            linestyle=dashes,
            linewidth=1.6,
            label=style.escape_dollars(f"{choice.label} ({choice.state})"),
        )
    axes.set_xlabel("score on held-out training rows, higher is better", color=style.INK)
    axes.set_ylabel("share of designs", color=style.INK)
    style.add_legend(figure)
    return figure


def plot_effects(effects: Sequence[EffectSummary]) -> Figure:
    """Groups (rows) × strategies (columns); an effect whose interval leaves out 0 has a star."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    groups = sorted({effect.group for effect in effects})
    names = list(dict.fromkeys(effect.strategy for effect in effects))
    numbers = np.full((len(groups), len(names)), np.nan)
    stars = set()
    for effect in effects:
        if effect.mean is None or effect.low is None or effect.high is None:
            continue
        cell = groups.index(effect.group), names.index(effect.strategy)
        numbers[cell] = effect.mean
        if effect.low > 0 or effect.high < 0:
            stars.add(cell)
    figure = style.new_figure(7.0, 1.4 + 0.5 * len(groups))
    axes = style.new_axes(figure)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    largest = float(np.nanmax(np.abs(numbers), initial=0.0)) or 1.0
    scale, palette = Normalize(-largest, largest), colormaps["PuOr"]
    axes.pcolormesh(np.ma.masked_invalid(numbers), cmap=palette, norm=scale)
    for (row, column), value in np.ndenumerate(numbers):
        if not np.isnan(value):
            ink = "black" if abs(value) < 0.6 * largest else "white"
            text = f"{value:+.2f}{'*' if (row, column) in stars else ''}"
            axes.text(
                column + 0.5, row + 0.5, text, color=ink, ha="center", va="center", fontsize=9
            )
    axes.set_xticks(np.arange(len(names)) + 0.5, [style.escape_dollars(name) for name in names])
    axes.set_yticks(np.arange(len(groups)) + 0.5, [f"group {group}" for group in groups])
    axes.invert_yaxis()
    axes.tick_params(axis="both", length=0)
    return figure
