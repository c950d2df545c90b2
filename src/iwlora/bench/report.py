"""Everything about a comparison, or about one run, on a page of HTML that needs no network."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from iwlora.bench import plots, stats
from iwlora.bench.records import Comparison, load
from iwlora.bench.tables import (
    absence,
    differences,
    duration,
    markdown,
    remarks,
    score,
    scoring,
    summary,
    table,
    terminal_table,
    verdict,
)
from iwlora.errors import IwloraError
from iwlora.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["terminal_table", "write_report"]


@dataclass(frozen=True)
class _Picture:
    """A figure with its caption, its words for who cannot see it, and its file name."""

    stem: str
    caption: str
    alt: str
    figure: Figure


def _pictures(comparison: Comparison) -> list[_Picture]:
    head, rows = table(comparison)
    metric = comparison.metrics[0]
    scores = "; ".join(f"{row[0]} {row[2]}" for row in rows)
    pictures = []
    if len(comparison.runs) > 1:
        caption = (
            f"{metric}: a dot for each seed; above the dots their mean and its 95% t interval."
        )
        alt = f"{head[2]} by arm: {scores}"
        pictures.append(_Picture("metric", caption, alt, plots.metric_by_arm(comparison)))
    if curves := plots.learning_curves(comparison):
        caption = "Learning curves: a thin line for each seed, a bold one for their mean."
        alt = f"Training loss and validation {metric} by step; at the end: {scores}"
        pictures.append(_Picture("curves", caption, alt, curves))
    for label in comparison.arms:
        for run in comparison.of(label):
            if measured := run.sensitivity():
                top = plots.most_important(measured)
                caption = (
                    f"Importance measured by {label}, seed {run.result.seed}: {measured.estimator} "
                    f"estimate over {measured.batches} batches in {duration(measured.seconds)}."
                )
                alt = "Largest shares: " + "; ".join(f"{n} {percent:.1f}%" for n, percent in top)
                figure = plots.importance_heatmap(measured)
                pictures.append(_Picture(f"importance-{label}", caption, alt, figure))
                break
    return pictures


def _environments(comparison: Comparison) -> dict[str, list[str]]:
    """{what: its values over all runs}: more than one value means times do not compare."""
    seen: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        for key, value in run.environment().items():
            if value is not None:
                seen.setdefault(key, {})[str(value)] = None
    return {key: list(values) for key, values in seen.items()}


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write summary.json, summary.md, figures/ and report.html into a comparison or run folder.

    Returns the path of report.html, which is written last and needs no other file. Raises
    ``IwloraError`` for a folder without a finished run or with a damaged one.
    """
    comparison = load(folder)
    if not comparison.runs:
        waiting = "; ".join(absence(*one) for one in comparison.missing)
        raise IwloraError(
            f"no run of {folder} has finished yet: {waiting}; continue with 'iwlora compare'"
        )
    root = comparison.folder
    numbers = json.dumps(summary(comparison), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(root / "summary.json", numbers + "\n")
    write_text(root / "summary.md", markdown(comparison))
    pictures = []
    for picture in _pictures(comparison):
        _, svg = plots.save(picture.figure, root / "figures" / picture.stem)
        data = base64.b64encode(svg.read_bytes()).decode("ascii")
        pictures.append({"caption": picture.caption, "alt": picture.alt, "data": data})
    page = root / "report.html"
    write_text(page, _page(comparison, pictures))
    return page


def _page(comparison: Comparison, pictures: list[dict[str, str]]) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("iwlora.bench").joinpath("report.html.jinja").read_text(encoding="utf-8")
    head, rows = table(comparison)
    recipes = [comparison.folder / name for name in ("comparison.yaml", "recipe.yaml")]
    return (
        environment.from_string(template).render(
            comparison=comparison,
            verdict=verdict(comparison),
            scoring=scoring(comparison),
            remarks=remarks(comparison),
            head=head,
            rows=rows,
            baseline=stats.baseline_of(comparison.arms),
            differences=differences(comparison),
            outcome=stats.outcome,
            score=score,
            duration=duration,
            pictures=pictures,
            environment=_environments(comparison),
            recipe="".join(path.read_text(encoding="utf-8") for path in recipes if path.exists()),
        )
        + "\n"
    )
