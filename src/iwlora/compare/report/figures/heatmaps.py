"""Heatmaps over blocks and kinds of matrix: importance, sizes of updates, ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iwlora.compare.report.figures.plots import INK, new_axes, new_figure, plain
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.text_tables import top_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TERMINAL_WIDTH = 100


@dataclass(frozen=True)
class Grid:
    """Numbers at (block, kind of matrix); ``digits`` after the point when they are shown."""

    title: str
    cells: Mapping[tuple[int, str], float]
    digits: int = 1


def shares(sensitivity: Sensitivity) -> dict[str, float]:
    """{site name: s_k / Σs}, the part of the total sensitivity; all 0 when the total is 0.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.0) for n, v in (("q", 3.0), ("k", 1.0)))
    >>> shares(Sensitivity(sites, "exact", 8, 0.0, True, 1.0))
    {'q': 0.75, 'k': 0.25}
    """
    total = math.fsum(sensitivity.values.values())
    return {name: value / total if total else 0.0 for name, value in sensitivity.values.items()}


def _grid(sensitivity: Sensitivity) -> tuple[list[int], list[str], dict[tuple[int, str], float]]:
    """Depths, kinds in forward order, and the percentage in each (depth, kind) that exists.

    Matrices of one kind in one block (experts, say) share a cell, which holds their sum.
    """
    part = shares(sensitivity)
    cells: dict[tuple[int, str], float] = {}
    for site in sensitivity.sites:
        cell = (site.depth, site.kind)
        cells[cell] = cells.get(cell, 0.0) + 100 * part[site.name]
    depths = sorted({depth for depth, _ in cells})
    return depths, list(dict.fromkeys(kind for _, kind in cells)), cells


def most_important(sensitivity: Sensitivity, n: int = 3) -> list[tuple[str, float]]:
    """The ``n`` sites with the largest shares, as (name, percentage)."""
    ordered = sorted(shares(sensitivity).items(), key=lambda item: -item[1])
    return [(name, 100 * share) for name, share in ordered[:n]]


def text_heatmap(sensitivity: Sensitivity) -> str:
    """The shares w_k in %, blocks x kinds, for a terminal; at most 100 columns wide.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.0) for n, v in (("q", 3.0), ("k", 1.0)))
    >>> print(text_heatmap(Sensitivity(sites, "exact", 8, 0.0, True, 1.0)).splitlines()[3])
        0  ███ 75.0  ▒▒▒ 25.0
    """
    depths, kinds, cells = _grid(sensitivity)
    largest = max(cells.values()) or 1.0
    heads = {kind: kind if len(kind) <= 24 else f"…{kind[-23:]}" for kind in kinds}
    lines = [
        f"Importance: share of the total sensitivity in %, {sensitivity.estimator} estimate "
        f"over {sensitivity.batches} batches"
    ]
    bands: list[list[str]] = [[]]
    width = 5
    for kind in kinds:
        column = 2 + max(len(heads[kind]), 8)
        if bands[-1] and width + column > _TERMINAL_WIDTH:
            bands.append([])
            width = 5
        bands[-1].append(kind)
        width += column
    for band in bands:
        lines += ["", "block" + "".join(f"  {heads[kind]:<8}" for kind in band)]
        for depth in depths:
            row = f"{depth:>5}"
            for kind in band:
                share = cells.get((depth, kind))
                cell = "" if share is None else f"{_shade(share / largest) * 3}{share:5.1f}"
                row += f"  {cell:<{max(len(heads[kind]), 8)}}"
            lines.append(row.rstrip())
    count = len(sensitivity.sites)
    top = ", ".join(f"{name} {percent:.1f}" for name, percent in most_important(sensitivity, 2))
    lines += ["", f"░ less to █ more; equal shares would be {100 / count:.1f} each", f"top: {top}"]
    return "\n".join(line if len(line) <= 100 else f"{line[:99]}…" for line in lines)


def importance_grid(sensitivity: Sensitivity) -> Grid:
    """The shares w_k in %."""
    equal = 100 / len(sensitivity.sites)
    return Grid(
        f"Share of the total sensitivity, %\n(equal shares: {equal:.2f}; {top_share(sensitivity)})",
        _grid(sensitivity)[2],
    )


def importance_heatmap(sensitivity: Sensitivity) -> Figure:
    """Blocks (rows) x kinds of matrix (columns), each cell w_k in %; blank where there is none."""
    return heatmaps([importance_grid(sensitivity)])


def heatmaps(grids: Sequence[Grid], alike: bool = False) -> Figure:
    """Panels one under another, on one scale of colours where the numbers are ``alike``."""
    kinds = list(dict.fromkeys(kind for grid in grids for _, kind in grid.cells))
    depths = [sorted({depth for depth, _ in grid.cells}) for grid in grids]
    heights = [1.2 + 0.34 * len(rows) for rows in depths]
    figure = new_figure(1.2 + 1.0 * max(len(kinds), 4), 0.5 + sum(heights))
    shared = max(max(grid.cells.values()) for grid in grids)
    panels = figure.add_gridspec(len(grids), 1, height_ratios=heights)
    for index, (grid, rows) in enumerate(zip(grids, depths, strict=True)):
        axes = new_axes(figure, place=panels[index])
        _panel(axes, grid, rows, shared if alike else max(grid.cells.values()))
    return figure


def _panel(axes: Axes, grid: Grid, depths: Sequence[int], largest: float) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    kinds = list(dict.fromkeys(kind for _, kind in grid.cells))
    table = np.full((len(depths), len(kinds)), np.nan)
    for (depth, kind), number in grid.cells.items():
        table[depths.index(depth), kinds.index(kind)] = number
    colour, palette = Normalize(0, largest or 1.0), colormaps["viridis"]
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.pcolormesh(np.ma.masked_invalid(table), cmap=palette, norm=colour)
    for (row, column), number in np.ndenumerate(table):
        if not np.isnan(number):
            red, green, blue, _ = palette(colour(number))
            luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
            ink = "black" if luminance > 0.179 else "white"
            axes.text(
                column + 0.5, row + 0.5, f"{number:.{grid.digits}f}", color=ink, ha="center",
                va="center", fontsize=9,
            )  # fmt: skip
    axes.set_xticks(np.arange(len(kinds)) + 0.5, [plain(kind) for kind in kinds])
    axes.tick_params(axis="both", length=0)
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(depths)) + 0.5, [str(depth) for depth in depths])
    axes.invert_yaxis()
    axes.set_ylabel("block", color=INK)
    axes.set_title(plain(grid.title), color=INK, fontsize=10, loc="left")


def _shade(part: float) -> str:
    return "░▒▓█"[min(int(4 * part), 3)]
