"""Heatmaps over blocks and matrix types: importance, update norms, ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iwlora.compare.report.figures.style import INK, escape_dollars, new_axes, new_figure
from iwlora.compare.report.text_columns import TERMINAL_WIDTH, align
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.text_tables import top_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

_SCALE_STEPS = 32
"""Of the bar of colors: with more than 50, matplotlib draws it as an image within the SVG."""


@dataclass(frozen=True)
class Heatmap:
    """Numbers at (block, matrix type), shown with ``digits`` after the point."""

    title: str
    cells: Mapping[tuple[int, str], float]
    digits: int = 1


def importance_shares(sensitivity: Sensitivity) -> dict[str, float]:
    """{site name: s_k / Σs}, its share of the total sensitivity; all 0 if the total is 0.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.0) for n, v in (("q", 3.0), ("k", 1.0)))
    >>> importance_shares(Sensitivity(sites, "exact", 8, 0.0, True, 1.0))
    {'q': 0.75, 'k': 0.25}
    """
    total = math.fsum(sensitivity.values.values())
    return {name: value / total if total else 0.0 for name, value in sensitivity.values.items()}


def importance_cells(sensitivity: Sensitivity) -> dict[tuple[int, str], float]:
    """{(block, matrix type): share in %}, the types in the order of the forward pass.

    Matrices of one type in one block, such as experts, share a cell, which holds their sum.
    """
    shares = importance_shares(sensitivity)
    cells: dict[tuple[int, str], float] = {}
    for site in sensitivity.sites:
        cell = (site.depth, site.kind)
        cells[cell] = cells.get(cell, 0.0) + 100 * shares[site.name]
    return cells


def most_important(sensitivity: Sensitivity, n: int = 3) -> list[tuple[str, float]]:
    """The ``n`` sites with the largest shares, as (name, share in %)."""
    ordered = sorted(importance_shares(sensitivity).items(), key=lambda item: -item[1])
    return [(name, 100 * share) for name, share in ordered[:n]]


def text_heatmap(sensitivity: Sensitivity) -> str:
    """The shares in %, blocks × matrix types, for a terminal: at most 100 columns wide.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.0) for n, v in (("q", 3.0), ("k", 1.0)))
    >>> print(text_heatmap(Sensitivity(sites, "exact", 8, 0.0, True, 1.0)).splitlines()[3])
        0  ███ 75.0  ▒▒▒ 25.0
    """
    cells = importance_cells(sensitivity)
    blocks, types = _axes_of(cells)
    largest = max(cells.values()) or 1.0
    columns = [["block", *(f"{block:>5}" for block in blocks)]]
    for name in types:
        shares = [cells.get((block, name)) for block in blocks]
        head = name if len(name) <= 24 else f"…{name[-23:]}"
        columns.append([head, *(_shaded(share, largest) for share in shares)])
    names = ", ".join(f"{name} {p:.1f}" for name, p in most_important(sensitivity, 2))
    lines = [
        f"Importance: share of the total sensitivity in %, {sensitivity.estimator} estimate "
        f"over {sensitivity.batches} batches",
        "",
        *align(columns),
        "",
        f"░ small to █ large; equal shares would be {100 / len(sensitivity.sites):.1f} each",
        f"largest: {names}",
    ]
    return "\n".join(
        line if len(line) <= TERMINAL_WIDTH else f"{line[: TERMINAL_WIDTH - 1]}…" for line in lines
    )


def importance_heatmap(sensitivity: Sensitivity) -> Heatmap:
    """The shares in %; a cell is blank if the block has no such matrix."""
    equal = 100 / len(sensitivity.sites)
    return Heatmap(
        f"Share of the total sensitivity, %\n(equal shares: {equal:.2f}; {top_share(sensitivity)})",
        importance_cells(sensitivity),
    )


def plot_heatmaps(heatmaps: Sequence[Heatmap], shared_scale: bool = False) -> Figure:
    """Blocks (rows) × matrix types (columns), one heatmap under another.

    Args:
        heatmaps: What to draw.
        shared_scale: Whether all heatmaps have the same scale of colors.
    """
    columns = len({name for heatmap in heatmaps for _, name in heatmap.cells})
    heights = [1.2 + 0.34 * len(_axes_of(heatmap.cells)[0]) for heatmap in heatmaps]
    figure = new_figure(1.2 + 1.0 * max(columns, 4), 0.5 + sum(heights))
    maxima = [max(heatmap.cells.values()) for heatmap in heatmaps]
    grid = figure.add_gridspec(len(heatmaps), 1, height_ratios=heights)
    axes = [new_axes(figure, grid[row]) for row in range(len(heatmaps))]
    largest = [max(maxima)] * len(maxima) if shared_scale else maxima
    cells = [*map(_plot_heatmap, axes, heatmaps, largest)]
    if shared_scale:
        _plot_scale(cells[0], axes)
    else:
        for mesh, panel in zip(cells, axes, strict=True):
            _plot_scale(mesh, [panel])
    return figure


def plot_importance(sensitivity: Sensitivity) -> Figure:
    """The heatmap of the shares in %."""
    return plot_heatmaps([importance_heatmap(sensitivity)])


def _plot_heatmap(axes: Axes, heatmap: Heatmap, largest: float) -> QuadMesh:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    blocks, types = _axes_of(heatmap.cells)
    numbers = np.full((len(blocks), len(types)), np.nan)
    for (block, name), number in heatmap.cells.items():
        numbers[blocks.index(block), types.index(name)] = number
    scale, palette = Normalize(0, largest or 1.0), colormaps["viridis"]
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    cells = axes.pcolormesh(np.ma.masked_invalid(numbers), cmap=palette, norm=scale)
    for (row, column), number in np.ndenumerate(numbers):
        if not np.isnan(number):
            red, green, blue, _ = palette(scale(number))
            luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
            ink = "black" if luminance > 0.179 else "white"
            axes.text(
                column + 0.5, row + 0.5, f"{number:.{heatmap.digits}f}", color=ink, ha="center",
                va="center", fontsize=9,
            )  # fmt: skip
    axes.set_xticks(np.arange(len(types)) + 0.5, [escape_dollars(name) for name in types])
    axes.tick_params(axis="both", length=0)
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(blocks)) + 0.5, [str(block) for block in blocks])
    axes.invert_yaxis()
    axes.set_ylabel("block", color=INK)
    axes.set_title(escape_dollars(heatmap.title), color=INK, fontsize=10, loc="left")
    return cells


def _plot_scale(cells: QuadMesh, beside: Sequence[Axes]) -> None:
    """The bar that says which color stands for which number."""
    from matplotlib.ticker import MaxNLocator

    bar = beside[0].figure.colorbar(
        cells, ax=beside, pad=0.02, aspect=12 * len(beside), ticks=MaxNLocator(5),
        boundaries=np.linspace(*cells.get_clim(), _SCALE_STEPS + 1),
    )  # fmt: skip
    bar.outline.set_visible(False)
    for steps in filter(None, [bar.solids]):
        steps.set_edgecolor("face")  # no pale lines between them
    bar.ax.tick_params(colors=INK, labelsize=8, length=0)


def _axes_of(cells: Mapping[tuple[int, str], float]) -> tuple[list[int], list[str]]:
    """The blocks, sorted, and the matrix types, in their order."""
    return sorted({block for block, _ in cells}), list(dict.fromkeys(name for _, name in cells))


def _shaded(share: float | None, largest: float) -> str:
    """A share in % after a bar whose shade grows with it; "" without a share."""
    if share is None:
        return ""
    return f"{'░▒▓█'[min(int(4 * share / largest), 3)] * 3}{share:5.1f}"
