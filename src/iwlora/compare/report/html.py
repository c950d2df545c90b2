"""Everything about a comparison, or about one run, on a page of HTML that needs no network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from iwlora.compare.number_format import format_duration, format_score
from iwlora.compare.report.caveats import absences, remarks
from iwlora.compare.report.figures import plots
from iwlora.compare.report.figures.selection import pictures
from iwlora.compare.report.figures.svg import small
from iwlora.compare.report.summary import summary
from iwlora.compare.report.tables import (
    Table,
    differences,
    overall,
    searches,
    table,
    verdict,
)
from iwlora.compare.report.text_formats import comma_separated, latex, markdown
from iwlora.compare.report.update_norms import updates_of
from iwlora.compare.statistics.analysis import Analysis, Compared, analyse
from iwlora.errors import IwloraError
from iwlora.inputs.paths import check_links
from iwlora.results import layout
from iwlora.results.combined import load_parts
from iwlora.results.comparison import Comparison
from iwlora.results.output_paths import check_writable
from iwlora.results.writing import write_text


@dataclass(frozen=True)
class Section:
    """One task on the page."""

    comparison: Comparison
    tables: list[Table]
    pictures: list[dict[str, str]]
    remarks: list[str]
    environment: dict[str, list[str]]
    recipes: list[tuple[str, str]]


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write the report of a comparison or run folder into it; see :func:`write`."""
    return write(analyse(load_parts([folder]), Path(folder)))


def write(found: Analysis) -> Path:
    """Write summary.json, .md, .csv and .tex, figures/ and report.html into the folder.

    Returns the path of report.html, which is written last and needs no other file. Raises
    ``IwloraError`` when no run has finished or one is damaged.
    """
    if not any(part.runs for part in found.parts):
        waiting = "; ".join(one for part in found.parts for one in absences(part.missing))
        raise IwloraError(
            f"no run of {found.folder} has finished yet: {waiting}; continue with 'iwlora compare'"
        )
    root = found.folder
    check_writable(root / layout.REPORT, "the report")
    check_links(root)
    numbers = summary(found)
    sections = []
    told = numbers.get("parts", [numbers])
    for number, (part, compared) in enumerate(zip(found.parts, found.compared, strict=True)):
        _add_updates(told[number], part)
        place = root / layout.FIGURES / (f"{number + 1}" if len(found.parts) > 1 else "")
        sections.append(_section(part, compared, place))
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(root / layout.SUMMARY_JSON, text + "\n")
    write_text(root / layout.SUMMARY_MARKDOWN, markdown(found))
    write_text(root / layout.SUMMARY_CSV, comma_separated(found))
    write_text(root / layout.SUMMARY_LATEX, latex(found))
    page = root / layout.REPORT
    write_text(page, _page(found, sections))
    return page


def _add_updates(told: dict[str, Any], part: Comparison) -> None:
    """‖Δ_k‖ and the rank of each matrix, mean over seeds, with the arm they belong to."""
    for arm in told["arms"]:
        arm["updates"] = {
            name: {"norm": one.norm, "rank": one.rank}
            for name, one in updates_of(part, arm["label"]).items()
        }


def _section(part: Comparison, compared: Sequence[Compared], place: Path) -> Section:
    shown = []
    for picture in pictures(part, compared):
        _, svg = plots.save(picture.figure, place / picture.stem)
        data = base64.b64encode(small(svg.read_text(encoding="utf-8")).encode()).decode("ascii")
        shown.append({"caption": picture.caption, "alt": picture.alt, "data": data})
    tables = [table(part)] if part.runs else []
    if compared:
        tables.append(differences(part, compared))
    if tried := searches(part):
        tables.append(tried)
    recipes = [
        (f"{run.result.label}, seed {run.result.seed}", text)
        for run in part.runs
        if (text := run.recipe())
    ]
    plan = part.folder / layout.COMPARISON
    if plan.is_file():
        recipes.insert(0, ("The comparison", plan.read_text(encoding="utf-8")))
    return Section(part, tables, shown, remarks(part), _environments(part), recipes)


def _environments(comparison: Comparison) -> dict[str, list[str]]:
    """{what: its values over all runs}: more than one value means times do not compare."""
    seen: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        for key, value in run.environment().items():
            if value is not None:
                seen.setdefault(key, {})[str(value)] = None
    return {key: list(values) for key, values in seen.items()}


def _page(found: Analysis, sections: Sequence[Section]) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (
        files("iwlora.compare.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    several = len(found.parts) > 1
    title = f"{len(found.parts)} tasks" if several else found.parts[0].title
    compared = [one for row in found.compared for one in row]
    return (
        environment.from_string(template).render(
            title=title,
            verdict=verdict(found),
            several=several,
            overall=overall(found) if compared else None,
            sections=sections,
            score=format_score,
            absences=absences,
            duration=format_duration,
        )
        + "\n"
    )
