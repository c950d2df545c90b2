"""Search which groups of layers should train which parts: LoRA, adapters, biases, prefixes.

Example:
    iwlora design recipes/design/sst2.yaml --out runs/design --jobs 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.cli.report import write_design_report
from iwlora.cli.terminal.arguments import Commands, add_command, add_overrides
from iwlora.cli.terminal.event_log import add_log_options, event_printer, print_json, print_now
from iwlora.cli.terminal.executors import add_executor_options, executor_maker
from iwlora.results.events import Event
from iwlora.results.writing import normalize_path

if TYPE_CHECKING:
    from iwlora.compare.plan.planned_runs import Plan


def add_parser(commands: Commands) -> None:
    """Add ``iwlora design``."""
    parser = add_command(commands, "design", run, __doc__)
    parser.add_argument("recipe", help="the recipe of a search; docs/design.md explains it")
    parser.add_argument(
        "--out",
        type=normalize_path,
        required=True,
        help="the folder of the search; the same command continues a search that was stopped; "
        "with more draws in the recipe it adds them",
    )
    add_executor_options(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train a few steps of some designs, print the runs and the estimated time of each "
        "stage, and keep nothing",
    )
    add_log_options(parser)
    add_overrides(parser, "design.search=paper design.draws=[8,16]")


def run(arguments: argparse.Namespace) -> int:
    """Search, write the report, and print what was decided; 1 if runs are missing."""
    from iwlora.compare.execute.comparison import run_comparison
    from iwlora.compare.report.write import write_report as write_comparison_report
    from iwlora.design.proxies.measuring import measure_layers
    from iwlora.design.recipe import load_design
    from iwlora.design.report.page import write_page
    from iwlora.design.search import check_folder, run_design

    design = load_design(arguments.recipe, arguments.overrides)
    if arguments.dry_run:
        from iwlora.design.cost import estimate_cost

        check_folder(design, Path(arguments.out))
        print(estimate_cost(design, arguments.jobs, print_now))
        return 0
    announce = event_printer(arguments, print_now)

    def compare(plan: Plan, folder: Path, is_reported: bool) -> bool:
        make_executor = executor_maker(plan, folder, arguments, announce, alone=False)
        failed = run_comparison(plan, folder, make_executor, announce, floors=is_reported)
        if is_reported:
            write_comparison_report(folder)
        return bool(failed)

    summary = run_design(design, arguments.out, compare, announce, measure_layers)
    if arguments.log_format == "json":
        page = write_page(summary, arguments.out)
        text = f"the search has ended; report: {page}"
        print_json(Event("finished", text, report=str(page), found=summary.found))
    else:
        write_design_report(summary, arguments.out)
    return 0 if summary.confirmation or design.confirm is None else 1
