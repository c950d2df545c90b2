"""A report as one HTML page that needs no network and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from iwlora.compare.report.content import ReportContent
from iwlora.results import layout

MOST_ROWS = 200
"""Of a table on the page; its CSV file has all."""


def html_page(content: ReportContent, images: Sequence[Sequence[str]]) -> str:
    """The page with all tables, figures, runs, environments and recipes.

    Args:
        content: What the page says.
        images: ``images[task][figure]``, SVG files in base64.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    return (
        environment.from_string(template).render(
            content=content, images=images, most_rows=MOST_ROWS, folder=f"{layout.TABLES}/"
        )
        + "\n"
    )
