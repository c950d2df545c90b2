"""Figures that are not drawn again: drawing takes most of the time of a report."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from iwlora.compare.report.figures.report_figures import ReportFigure
from iwlora.compare.report.figures.style import save_figure
from iwlora.inputs.places import read_bytes
from iwlora.results.file_digests import is_own, note_own

_PACKAGE = Path(__file__).parents[3]
_DRAWN_BY = ("compare", "results")  # folders whose code decides what a figure looks like


def draw_once(figure: ReportFigure, folder: Path) -> Path:
    """Save a figure as PNG and SVG, unless this user's last report has drawn the same.

    Returns:
        The SVG file.
    """
    png, svg = (folder / f"{figure.stem}.{suffix}" for suffix in ("png", "svg"))
    content = content_digest(figure)
    if not (is_own(png, content) and is_own(svg, content)):
        save_figure(figure.draw(), folder / figure.stem)
        for file in (png, svg):
            note_own(file, content)
    return svg


def content_digest(figure: ReportFigure) -> str:
    """SHA-256 of all that decides a figure: its data, iwlora's code, matplotlib's version."""
    draw = figure.draw
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        content = repr((draw.func.__qualname__, draw.args, sorted(draw.keywords.items())))
    return hashlib.sha256(f"{_code_digest()} {content}".encode()).hexdigest()


@cache
def _code_digest() -> str:
    digest = hashlib.sha256(version("matplotlib").encode())
    for folder in _DRAWN_BY:
        for file in sorted((_PACKAGE / folder).rglob("*.py")):
            digest.update(read_bytes(file, "text"))
    return digest.hexdigest()
