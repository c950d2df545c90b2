"""Writing a report: summary.json, .md, .csv and .tex, the tables, the figures and report.html."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from iwlora.compare.report.content import ReportContent, TaskSection, build_content
from iwlora.compare.report.figures.drawn import draw_once
from iwlora.compare.report.figures.svg import shrink_svg
from iwlora.compare.report.formats.html import html_page
from iwlora.compare.report.formats.latex import latex
from iwlora.compare.report.formats.markdown import markdown
from iwlora.compare.report.formats.runs_csv import runs_csv
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.formats.table_csv import table_csv
from iwlora.compare.statistics.analysis import analyze
from iwlora.errors import IwloraError
from iwlora.inputs.control_characters import visible
from iwlora.inputs.yaml_json import read_utf8
from iwlora.results import layout
from iwlora.results.comparison.combined import load_parts
from iwlora.results.writing import check_writable, reserve, write_text

_BYTES_PER_TASK = 4_000_000  # figures, as files and within the page


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write the report of a comparison or run folder into it; see :func:`write_content`."""
    return write_content(build_content(analyze(load_parts([folder]), Path(folder))))


def write_content(content: ReportContent) -> Path:
    """Write all files of a report into the folder of its analysis.

    Returns:
        The path of report.html, which is written last and needs no other file.

    Raises:
        IwloraError: No run has finished, or the folder is not writable.
    """
    root = content.analysis.folder
    if not content.analysis.finished:
        missing = "; ".join(runs for section in content.sections for runs in section.missing)
        raise IwloraError(
            f"no run of {root} has finished yet: {missing}; continue with 'iwlora compare'"
        )
    check_writable(root / layout.REPORT, "the report")
    reserve(root, _BYTES_PER_TASK * len(content.sections), "the report")
    images = [
        _write_figures(section, root / layout.FIGURES / (str(n) if content.several_tasks else ""))
        for n, section in enumerate(content.sections, start=1)
    ]
    for n, section in enumerate(content.sections, start=1):
        folder = root / layout.TABLES / (str(n) if content.several_tasks else "")
        for stem, table in section.files.items():
            write_text(folder / f"{stem}.csv", visible(table_csv(table)))
    if content.overall:
        write_text(root / layout.TABLES / "overall.csv", visible(table_csv(content.overall)))
    write_text(root / layout.SUMMARY_JSON, visible(summary_json(content)))
    write_text(root / layout.SUMMARY_MARKDOWN, visible(markdown(content)))
    write_text(root / layout.SUMMARY_CSV, visible(runs_csv(content)))
    write_text(root / layout.SUMMARY_LATEX, latex(content))
    page = root / layout.REPORT
    write_text(page, visible(html_page(content, images)))
    return page


def _write_figures(section: TaskSection, folder: Path) -> list[str]:
    """Save the figures; returns their SVG files, shortened and in base64."""
    images = []
    for figure in section.figures:
        shrunk = shrink_svg(read_utf8(draw_once(figure, folder)))
        images.append(base64.b64encode(shrunk.encode()).decode("ascii"))
    return images
