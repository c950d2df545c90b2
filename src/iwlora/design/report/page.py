"""The report of a search as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.compare.report.figures.style import save_figure
from iwlora.compare.report.figures.svg import shrink_svg
from iwlora.design.report.figures import plot_distributions, plot_effects
from iwlora.design.report.tables import (
    choice_table,
    cost_sentence,
    effect_table,
    found_texts,
    open_sentence,
    proxy_table,
    score_sentence,
    stage_table,
)
from iwlora.inputs.control_characters import visible
from iwlora.inputs.yaml_json import read_utf8
from iwlora.results import layout
from iwlora.results.comparison.designs import DesignSummary
from iwlora.results.writing import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(summary: DesignSummary, out: str | os.PathLike[str]) -> Path:
    """Write the figures and the page of a search into its folder; returns the page."""
    from jinja2 import Environment, StrictUndefined

    folder, metric = Path(out), summary.metric or ""
    figures = folder / layout.FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    sections = [
        {
            "stage": stage,
            "table": choice_table(stage, metric),
            "image": _image(plot_distributions(stage, metric), figures / stage.name)
            if stage.runs
            else None,
        }
        for stage in summary.stages
    ]
    known = [effect for effect in summary.effects if effect.mean is not None]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        summary=summary,
        stages=stage_table(summary),
        sections=sections,
        effects=effect_table(summary) if known else None,
        map=_image(plot_effects(summary.effects), figures / "effects") if known else None,
        proxies=proxy_table(summary) if summary.proxies else None,
        found=found_texts(summary),
        cost=cost_sentence(summary),
        open=open_sentence(summary),
        scores=score_sentence(summary),
        recipe=layout.FOUND,
        confirm=f"{summary.confirmation}/{layout.REPORT}",
    )
    write_text(folder / layout.REPORT, visible(text + "\n"))
    return folder / layout.REPORT


def _image(figure: Figure, stem: Path) -> str:
    """The figure as SVG in base64; it is saved as PNG and SVG too."""
    _, svg = save_figure(figure, stem)
    return base64.b64encode(shrink_svg(read_utf8(svg)).encode()).decode("ascii")
