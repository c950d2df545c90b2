"""The look that all figures share, and how a figure is saved; matplotlib is imported when used."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.extras import outside_the_current_folder
from iwlora.inputs.control_characters import visible
from iwlora.results.writing import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black and yellow: color-blind readers can distinguish them, and
# they are readable on white and on near-black. Markers differ too, so color is never alone.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LETTERS_PER_INCH, _LEGEND_MARK = 11, 9
"""Letters of a legend that fit, and how many of them the mark before a name takes."""
INK, INK_ON_DARK = "#1f2328", "#e6edf3"


def escape_dollars(text: str) -> str:
    """``text`` with dollar signs that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; ``width`` and ``height`` are in inches."""
    with outside_the_current_folder():  # whose matplotlibrc would be read
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", hspace=0.08)
    return figure


def new_axes(figure: Figure, *position: Any) -> Axes:
    """An empty panel at ``position``, as ``Figure.add_subplot`` takes it."""
    axes = figure.add_subplot(*position)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(color="#8b949e", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def add_legend(figure: Figure) -> None:
    """The names of the arms of all panels above them, where no data are."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    width = round(_LETTERS_PER_INCH * figure.get_figwidth())
    most = width - _LEGEND_MARK
    names = [name if len(name) <= most else f"{name[: most - 1]}…" for name in entries]
    columns = max(1, width // (max(map(len, names), default=0) + _LEGEND_MARK))
    figure.legend(
        [*entries.values()], names, loc="outside upper left", frameon=False, fontsize=9,
        labelcolor=INK, ncols=columns,
    )  # fmt: skip


def save_figure(figure: Figure, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.svg; equal figures give equal bytes.

    The PNG is on white. The SVG is transparent, and its ink is light in a dark color scheme.
    """
    from matplotlib import rc_context

    png, svg = (Path(f"{os.fspath(stem)}.{suffix}") for suffix in ("png", "svg"))
    with replacing(png) as new:
        figure.savefig(new, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    figure.set_layout_engine("none")  # the SVG has the layout of the PNG
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
    write_text(svg, visible(f"{head}{style}{defs}{rest}"))
    return png, svg
