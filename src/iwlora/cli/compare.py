"""Train several methods over several seeds and compare them, or compare existing results.

Example:
    iwlora compare recipes/compare/quickstart.yaml --out runs/quickstart
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.cli.report import write_report
from iwlora.cli.terminal.arguments import (
    BASELINE,
    Commands,
    add_command,
    print_bad_rows,
    suggested,
)
from iwlora.cli.terminal.event_log import (
    add_log_options,
    draws_progress,
    event_printer,
    print_json,
    print_now,
)
from iwlora.cli.terminal.executors import (
    add_executor_options,
    chosen_executor,
    executor_maker,
)
from iwlora.errors import IwloraError, raise_all
from iwlora.results.events import Event
from iwlora.results.writing import normalize_path

if TYPE_CHECKING:
    from iwlora.compare.execute.packed.estimate import PacksEstimate
    from iwlora.compare.plan.planned_runs import Plan, PlannedRun
    from iwlora.results.comparison import Comparison


def add_parser(commands: Commands) -> None:
    """Add ``iwlora compare``."""
    parser = add_command(commands, "compare", run, __doc__)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="the recipe of a comparison; or two recipes of runs; or a file of data, for which a "
        "recipe is suggested; or folders of results; or a CSV file with the columns method, task, "
        "seed, score. After recipes and data: fields to set, for "
        "example train.lr=1e-3 seeds=[0,1,2,3,4,5]. After recipes and results: "
        "vary=[task.max_train], if arms differ in this field of their training data",
    )
    parser.add_argument(
        "--out",
        type=normalize_path,
        help="the folder of the comparison; may be left out for a file of data: runs/NAME-compared",
    )
    add_executor_options(parser)
    parser.add_argument("--baseline", metavar="LABEL", help=BASELINE)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train a few steps of each arm, print the runs, their budgets and the estimated "
        "time, and keep nothing but the list of rows that cannot be used",
    )
    add_log_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train what the recipes describe, or read existing results; then write the report."""
    from iwlora.compare.execute.forking import import_without_threads

    import_without_threads()  # so that runs can be forked from this process
    from iwlora.training.suggestion.data_argument import default_folder, is_data_beside_results

    sources, overrides = _split_overrides(arguments.sources)
    recipes = [s for s in sources if s.endswith((".yaml", ".yml")) or not Path(s).exists()]
    data = sources[0] if len(sources) == 1 and is_data_beside_results(sources[0]) else None
    if data is not None:
        arguments.out = arguments.out or default_folder(data, "-compared")
    elif arguments.out is None:
        raise IwloraError("--out: missing; give the folder of the comparison")
    if not recipes and data is None:
        return _compare_results(sources, overrides, arguments)
    if recipes and len(recipes) < len(sources):
        raise IwloraError(
            f"{', '.join(sources)}: give either recipes to train, or results to compare, not both"
        )
    if arguments.baseline is not None:
        overrides.append(f"baseline={json.dumps(arguments.baseline)}")
    plan = _plan(recipes, overrides) if data is None else _plan_for_data(data, overrides, arguments)
    specs = list({run.recipe.task.model_dump_json(): run.recipe.task for run in plan.runs}.values())
    if any(spec.on_bad == "report" for spec in specs):
        return print_bad_rows(specs, arguments.out)
    if arguments.dry_run:
        from iwlora.compare.plan.cost_estimate import estimate_cost
        from iwlora.training.state.bad_rows import bad_rows_file

        bad_rows = bad_rows_file(arguments.out)
        packs = _packs_estimate(plan, arguments)
        print(estimate_cost(plan, arguments.jobs, print_now, bad_rows, packs))
        return 0
    return _compare_runs(plan, arguments)


def _plan(recipes: list[str], overrides: list[str]) -> Plan:
    from iwlora.compare.plan.recipe import load_plan
    from iwlora.compare.plan.run_recipes import plan_run_recipes

    if len(recipes) > 1:
        return plan_run_recipes(recipes, overrides)
    return load_plan(recipes[0], overrides)


def _plan_for_data(data: str, overrides: list[str], arguments: argparse.Namespace) -> Plan:
    report = event_printer(arguments, print_now)
    report(Event("reading", f"reading {data}", data=data))
    from iwlora.compare.plan.recipe import plan_settings
    from iwlora.compare.plan.suggestion import suggest_comparison

    suggestion = suggest_comparison(data, overrides)
    plan = plan_settings(suggestion.settings)
    report(suggested(suggestion, " --compare"))
    return plan


def _compare_runs(plan: Plan, arguments: argparse.Namespace) -> int:
    from iwlora.compare.execute.comparison import run_comparison
    from iwlora.compare.execute.progress import TerminalProgress
    from iwlora.compare.report.content import build_content
    from iwlora.compare.report.figures.heatmaps import text_heatmap
    from iwlora.compare.report.formats.terminal import terminal_text
    from iwlora.compare.report.write import write_content
    from iwlora.compare.statistics.analysis import analyze
    from iwlora.results.comparison import load_comparison

    view = TerminalProgress(plan) if draws_progress(arguments) else None
    announce = view.announce if view else event_printer(arguments, print_now)
    make_executor = executor_maker(plan, arguments.out, arguments, announce)
    failed = run_comparison(plan, arguments.out, make_executor, announce, view)
    comparison = load_comparison(arguments.out)
    if arguments.log_format == "json":
        page = write_content(build_content(analyze([comparison]))) if comparison.runs else None
        print_json(_finished(comparison, failed, page))
        return 1 if failed else 0
    if not comparison.runs:
        print("\n" + terminal_text(build_content(analyze([comparison]))))
        print(f"error: no run of {arguments.out} has finished", file=sys.stderr)
        return 1
    measured = [s for s in (run.sensitivity() for run in comparison.runs) if s is not None]
    write_report(analyze([comparison]), text_heatmap(measured[0]) if measured else "")
    return 1 if failed else 0


def _packs_estimate(plan: Plan, arguments: argparse.Namespace) -> PacksEstimate | None:
    from iwlora.compare.execute.packed.estimate import PacksEstimate

    if chosen_executor(plan, arguments.out, arguments, print_now) != "packed":
        return None
    return PacksEstimate(plan)


def _finished(comparison: Comparison, failed: list[PlannedRun], page: Path | None) -> Event:
    done = len(comparison.runs)
    text = f"{done} of {done + len(failed)} runs finished; report: {page or 'none'}"
    fields = {"runs": done, "failed": [str(run) for run in failed]}
    return Event("finished", text, report=page and str(page), **fields)


def _compare_results(
    sources: list[str], overrides: list[str], arguments: argparse.Namespace
) -> int:
    from iwlora.compare.plan.training_data import unused_fields, vary_problems
    from iwlora.compare.statistics.analysis import analyze
    from iwlora.results.comparison.combined import load_parts, save_sources
    from iwlora.training.overrides import override

    if others := [text for text in overrides if text.partition("=")[0] != "vary"]:
        raise IwloraError(
            f"{' '.join(others)}: existing results have no recipe fields to set; remove it"
        )
    vary = override({}, overrides).get("vary") or []
    raise_all(vary_problems(vary))
    folder = Path(arguments.out)
    parts = load_parts(sources, vary)
    raise_all(unused_fields(vary, [field for part in parts for field in part.vary]))
    analysis = analyze(parts, folder, arguments.baseline)
    save_sources(folder, sources, arguments.baseline, vary)
    write_report(analysis)
    return 0


def _split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(sources, overrides); raises ``IwloraError`` for overrides alone."""
    from iwlora.training.overrides import is_assignment, no_recipe

    overrides = [text for text in arguments if is_assignment(text)]
    if len(overrides) == len(arguments):
        raise no_recipe(overrides)
    return [text for text in arguments if text not in overrides], overrides
