"""Figures (matplotlib's object API, imported when one is drawn) and a heatmap for the terminal."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iwlora.bench.records import Comparison, Run
from iwlora.bench.stats import scale, summarise
from iwlora.files import write_text
from iwlora.sensitivity.record import Sensitivity
from iwlora.sensitivity.tables import top_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black and yellow: told apart under colour blindness, and
# readable on white as on near-black. Markers differ too, so that colour is never alone.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _INK_ON_DARK = "#1f2328", "#e6edf3"
_MAX_POINTS = 200
_TERMINAL_WIDTH = 100


def shares(sensitivity: Sensitivity) -> dict[str, float]:
    """{site name: s_k / Σs}, the part of the total sensitivity; all 0 when the total is 0.

    >>> from iwlora.sensitivity.record import SiteSensitivity
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

    >>> from iwlora.sensitivity.record import SiteSensitivity
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


def _shade(part: float) -> str:
    return "░▒▓█"[min(int(4 * part), 3)]


def _plain(text: str) -> str:
    """``text`` without the meaning that matplotlib gives to dollar signs."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", hspace=0.08)
    return figure


def _axes(figure: Figure, rows: int = 1, index: int = 1) -> Axes:
    axes = figure.add_subplot(rows, 1, index)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.grid(color="#8b949e", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def importance_heatmap(sensitivity: Sensitivity) -> Figure:
    """Blocks (rows) x kinds of matrix (columns), each cell w_k in %; blank where there is none."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    depths, kinds, cells = _grid(sensitivity)
    table = np.full((len(depths), len(kinds)), np.nan)
    for (depth, kind), percent in cells.items():
        table[depths.index(depth), kinds.index(kind)] = percent
    colour = Normalize(0, max(cells.values()) or 1.0)
    palette = colormaps["viridis"]
    figure = _figure(1.2 + 1.0 * max(len(kinds), 4), 1.7 + 0.34 * len(depths))
    axes = _axes(figure)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.pcolormesh(np.ma.masked_invalid(table), cmap=palette, norm=colour)
    for (row, column), percent in np.ndenumerate(table):
        if not np.isnan(percent):
            red, green, blue, _ = palette(colour(percent))
            luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
            ink = "black" if luminance > 0.179 else "white"
            axes.text(
                column + 0.5, row + 0.5, f"{percent:.1f}", color=ink, ha="center", va="center",
                fontsize=9,
            )  # fmt: skip
    axes.set_xticks(np.arange(len(kinds)) + 0.5, [_plain(kind) for kind in kinds])
    axes.tick_params(axis="both", length=0)
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(depths)) + 0.5, [str(depth) for depth in depths])
    axes.invert_yaxis()
    axes.set_ylabel("block", color=_INK)
    axes.set_title(
        f"Share of the total sensitivity, %\n"
        f"(equal shares: {100 / len(sensitivity.sites):.2f}; {top_share(sensitivity)})",
        color=_INK, fontsize=10, loc="left",
    )  # fmt: skip
    return figure


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
    factor = scale(metric) if metric else 1.0
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
            steps, values, color=colour, linewidth=1.8, label=_plain(label),
            marker=marker, markersize=5, markevery=max(1, len(steps) // 10),
        )  # fmt: skip
    return drawn


def learning_curves(comparison: Comparison) -> Figure | None:
    """Training loss, and the primary metric on validation data, by step; None without logs."""
    metric = comparison.metrics[0]
    panels: list[tuple[str | None, str]] = [(None, "training loss"), (metric, _axis_title(metric))]
    figure = _figure(7.0, 6.0)
    drawn = []
    for index, (name, title) in enumerate(panels, start=1):
        axes = _axes(figure, 2, index)
        axes.set_title(
            title if name is None else f"validation {title}", color=_INK, fontsize=10, loc="left"
        )
        if _curves(axes, comparison, name):
            drawn.append(axes)
        else:
            axes.remove()
    if not drawn:
        return None
    drawn[-1].set_xlabel("step", color=_INK)
    drawn[0].legend(frameon=False, fontsize=9, labelcolor=_INK)
    return figure


def _axis_title(metric: str) -> str:
    return _plain(f"{metric} (× 100)" if scale(metric) > 1 else metric)


def metric_by_arm(comparison: Comparison) -> Figure:
    """The primary metric: a point for each seed, the mean, and its 95% t interval, by arm.

    The axis follows the points, so the very wide interval of two seeds may run off the figure.
    """
    metric = comparison.metrics[0]
    labels = [label for label in comparison.arms if comparison.of(label)]
    points = [
        scale(metric) * v for label in labels for v in comparison.values(label, metric).values()
    ]
    figure = _figure(7.0, 1.2 + 0.55 * len(labels))
    axes = _axes(figure)
    for row, label in enumerate(labels):
        colour, marker = _style(comparison, label)
        values = [scale(metric) * v for v in comparison.values(label, metric).values()]
        axes.scatter(values, [row + 0.16] * len(values), s=16, color=colour, alpha=0.55, lw=0)
        summary = summarise(values)
        if summary.low is not None and summary.high is not None:
            axes.plot([summary.low, summary.high], [row - 0.12] * 2, color=colour, linewidth=2)
        axes.plot(summary.mean, row - 0.12, marker=marker, color=colour, markersize=8)
    axes.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    margin = 0.5 * (max(points) - min(points)) or 0.01 * scale(metric)
    axes.set_xlim(min(points) - margin, max(points) + margin)
    axes.set_xlabel(_axis_title(metric), color=_INK)
    return figure


def save(figure: Figure, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.svg; equal figures give equal bytes.

    The PNG is on white; the SVG is transparent and turns its ink light in a dark scheme.
    """
    from matplotlib import rc_context

    png, svg = (Path(f"{os.fspath(stem)}.{kind}") for kind in ("png", "svg"))
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=150, facecolor="white", metadata={"Software": None})
    drawing = io.StringIO()
    with rc_context({"svg.hashsalt": "iwlora", "svg.fonttype": "path"}):
        figure.savefig(
            drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    dark = "".join(
        f'[style*="{paint}: {_INK}"]{{{paint}:{_INK_ON_DARK} !important}}'
        for paint in ("fill", "stroke")
    )
    head, defs, rest = drawing.getvalue().partition("<defs>")
    style = f'<style type="text/css">@media (prefers-color-scheme: dark){{{dark}}}</style>'
    write_text(svg, f"{head}{style}{defs}{rest}")
    return png, svg
