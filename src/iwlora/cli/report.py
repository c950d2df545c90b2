"""Write the report of a run, comparison or design search again, or print that of a pool.

Example:
    iwlora report runs/quickstart --open
    iwlora report pool/ --rows labeled.csv
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.cli.terminal.arguments import (
    BASELINE,
    Commands,
    add_command,
    add_trust_remote_code,
    names,
)
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.results.comparison.designs import DesignSummary
from iwlora.results.layout import is_pool

if TYPE_CHECKING:
    from iwlora.compare.statistics.analysis import Analysis


def add_parser(commands: Commands) -> None:
    """Add ``iwlora report``."""
    parser = add_command(commands, "report", run, __doc__, loads_models=False)
    parser.add_argument(
        "folder", help="the folder of a run, a comparison, a design search or a pool"
    )
    parser.add_argument("--baseline", metavar="LABEL", help=BASELINE)
    parser.add_argument(
        "--open", action="store_true", dest="is_shown", help="show the page in a browser"
    )

    pool = parser.add_argument_group("of a pool")
    pool.add_argument(
        "--use",
        type=names,
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="also score this subset of the sources; may be repeated",
    )
    pool.add_argument(
        "--rows",
        metavar="FILE",
        help="labeled rows to score subsets on; default: those that the runs were scored on, if "
        "they are the same",
    )
    pool.add_argument(
        "--weight-averages",
        action="store_true",
        help="also score averages of the weights of LoRA adapters: linear, SVD, TIES and DARE",
    )
    add_trust_remote_code(pool)


def run(arguments: argparse.Namespace) -> None:
    """Write the report of a folder again; print that of a pool."""
    if is_pool(arguments.folder):
        _print_pool(arguments)
        return
    given = {
        "--use": arguments.use,
        "--rows": arguments.rows,
        "--weight-averages": arguments.weight_averages,
    }
    for option in (name for name, value in given.items() if value):
        raise IwloraError(f"{option} is for a pool, and {arguments.folder} is none; leave it out")
    folder = Path(arguments.folder)
    if (folder / layout.DESIGN).is_file():
        page = write_design_report(DesignSummary.load(folder / layout.SUMMARY_JSON), folder)
    else:
        from iwlora.compare.statistics.analysis import analyze
        from iwlora.results.comparison.combined import load_parts

        page = write_report(analyze(load_parts([arguments.folder]), folder, arguments.baseline))
    if arguments.is_shown and not webbrowser.open_new_tab(page.resolve().as_uri()):
        print("no browser was found: open the page yourself", file=sys.stderr)


def _print_pool(arguments: argparse.Namespace) -> None:
    if arguments.baseline or arguments.is_shown:
        option = "--baseline" if arguments.baseline else "--open"
        raise IwloraError(
            f"{option} is for runs and comparisons; the report of a pool is printed, so that "
            "nothing is added to the pool"
        )
    from iwlora.cli.terminal.library_logging import show_errors_only
    from iwlora.compose.report import report

    show_errors_only()
    found = report(
        arguments.folder,
        arguments.use,
        arguments.rows,
        arguments.trust_remote_code,
        arguments.weight_averages,
    )
    print(found, end="")


def write_report(analysis: Analysis, heatmap: str = "") -> Path:
    """Write the report's files, print its tables and the path of the HTML page; returns it."""
    from iwlora.compare.report.content import build_content
    from iwlora.compare.report.formats.terminal import terminal_text
    from iwlora.compare.report.write import write_content

    content = build_content(analysis)
    page = write_content(content)
    print("\n" + terminal_text(content))
    if heatmap:
        print("\n" + heatmap)
    print(f"\nreport: {page}")
    return page


def write_design_report(summary: DesignSummary, folder: Path) -> Path:
    """Write the page of a search of designs, print what it decided; returns the page."""
    from iwlora.design.report.page import write_page
    from iwlora.design.report.text import summary_text

    page = write_page(summary, folder)
    print(f"\n{summary_text(summary)}\n\nreport: {page}")
    if summary.confirmation:
        print(f"with other methods: {folder / summary.confirmation / layout.REPORT}")
    return page
