"""Write the report of a finished run or comparison again.

Example:
    iwlora report runs/quickstart --open
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.cli.terminal.arguments import BASELINE, Commands, add_command

if TYPE_CHECKING:
    from iwlora.compare.statistics.analysis import Analysis


def add_parser(commands: Commands) -> None:
    """Add ``iwlora report``."""
    parser = add_command(commands, "report", run, __doc__, loads_models=False)
    parser.add_argument("folder", help="the folder of a run or a comparison")
    parser.add_argument("--baseline", metavar="LABEL", help=BASELINE)
    parser.add_argument(
        "--open", action="store_true", dest="is_shown", help="show the page in a browser"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the report of a folder again."""
    from iwlora.compare.statistics.analysis import analyse
    from iwlora.results.comparison.combined import load_parts

    folder = Path(arguments.folder)
    page = write_report(analyse(load_parts([arguments.folder]), folder, arguments.baseline))
    if arguments.is_shown and not webbrowser.open_new_tab(page.resolve().as_uri()):
        print("no browser was found: open the page yourself", file=sys.stderr)


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
