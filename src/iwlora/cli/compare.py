"""The commands that compare and report."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.errors import IwloraError
from iwlora.inputs.paths import settled

if TYPE_CHECKING:
    from iwlora.compare.plan.recipe import Plan
    from iwlora.compare.statistics.analysis import Analysis

OVERRIDES = "recipe fields as key=value, with dots: train.lr=1e-3 seeds=[0,1,2,3,4,5]"


BASELINE = "the arm that the others are compared with; default lora, else the first"


def add_arguments(compare: argparse.ArgumentParser) -> None:
    """What ``iwlora compare`` takes."""
    compare.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a comparison's recipe; or two recipes of runs, folders of results, or a CSV with "
        f"method, task, seed, score. Then {OVERRIDES}",
    )
    compare.add_argument("--out", type=settled, required=True, help="the folder of the comparison")
    compare.add_argument(
        "--jobs", type=int, default=1, help="runs at once, each on its own cores or GPU; default 1"
    )
    compare.add_argument(
        "--executor", choices=["local", "ray"], default="local", help="where runs are carried out"
    )
    compare.add_argument("--baseline", metavar="LABEL", help=BASELINE)
    compare.add_argument(
        "--dry-run",
        action="store_true",
        help="print the runs, their budgets and the estimated time; carry out none",
    )


def carry_out(given: argparse.Namespace) -> int:
    """Carry out a comparison, or compare what is there already, and report."""
    sources, overrides = _parted(given.sources)
    recipes = [one for one in sources if one.endswith((".yaml", ".yml")) or not Path(one).exists()]
    if not recipes:
        return _compare_results(sources, overrides, given)
    if len(recipes) < len(sources):
        raise IwloraError(
            f"{', '.join(sources)}: give recipes to carry out, or results to compare, not both"
        )
    from iwlora.compare.plan.recipe import load_plan
    from iwlora.compare.plan.run_recipes import plan_recipes

    if given.baseline is not None:
        overrides.append(f"baseline={json.dumps(given.baseline)}")
    many = len(recipes) > 1
    plan = plan_recipes(recipes, overrides) if many else load_plan(recipes[0], overrides)
    if given.dry_run:
        from iwlora.compare.plan.cost_estimate import estimate

        print(estimate(plan, given.jobs, _announce))
        return 0
    return _compare_runs(plan, given)


def report(given: argparse.Namespace) -> int:
    """Write the report of a folder again."""
    from iwlora.compare.statistics.analysis import analyse
    from iwlora.results.combined import load_parts

    return _told(analyse(load_parts([given.folder]), Path(given.folder), given.baseline))


def _compare_runs(plan: Plan, given: argparse.Namespace) -> int:
    from iwlora.compare.execute.local import Local
    from iwlora.compare.execute.progress import Progress
    from iwlora.compare.execute.ray import Ray
    from iwlora.compare.execute.scheduler import compare
    from iwlora.compare.report.figures.heatmaps import text_heatmap
    from iwlora.compare.report.text_formats import terminal_table
    from iwlora.compare.statistics.analysis import analyse
    from iwlora.results.comparison import load_comparison

    kind = Ray if given.executor == "ray" else Local
    view = Progress(plan) if sys.stderr.isatty() else None
    announce = view.announce if view else _announce
    failed = compare(plan, given.out, lambda lock: kind(given.jobs, lock), announce, view)
    comparison = load_comparison(given.out)
    if not comparison.runs:
        print("\n" + terminal_table(analyse([comparison])))
        print(f"error: no run of {given.out} has finished", file=sys.stderr)
        return 1
    measured = [s for s in (run.sensitivity() for run in comparison.runs) if s is not None]
    _told(analyse([comparison]), text_heatmap(measured[0]) if measured else "")
    return 1 if failed else 0


def _compare_results(sources: list[str], overrides: list[str], given: argparse.Namespace) -> int:
    from iwlora.compare.statistics.analysis import analyse
    from iwlora.results.combined import load_parts, remember

    if overrides:
        raise IwloraError(f"{' '.join(overrides)}: results are compared as they are")
    parts = load_parts(sources)
    found = analyse(parts, Path(given.out), given.baseline)
    remember(Path(given.out), sources, given.baseline)
    return _told(found)


def _told(found: Analysis, more: str = "") -> int:
    from iwlora.compare.report.html import write
    from iwlora.compare.report.text_formats import terminal_table

    path = write(found)
    print("\n" + terminal_table(found))
    if more:
        print("\n" + more)
    print(f"\nreport: {path}")
    return 0


def _parted(given: list[str]) -> tuple[list[str], list[str]]:
    """(sources, overrides): what has an equals sign and is no file sets a field."""
    overrides = [one for one in given if "=" in one and not Path(one).exists()]
    return [one for one in given if one not in overrides], overrides


def _announce(text: str) -> None:
    print(text, flush=True)
