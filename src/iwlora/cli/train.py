"""Fine-tune a model by a recipe, and score it.

Example:
    iwlora train recipes/quickstart.yaml method.name=iw-lora train.seed=1 --out runs/a
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from iwlora.cli.terminal.arguments import (
    Commands,
    add_command,
    add_overrides,
    print_bad_rows,
    suggested,
)
from iwlora.cli.terminal.event_log import (
    add_log_options,
    draws_progress,
    event_printer,
    few_lines,
    print_json,
)
from iwlora.results.events import Event, Report, ignore
from iwlora.results.writing import normalize_path

if TYPE_CHECKING:
    from iwlora.results.run import RunResult
    from iwlora.training.dry_run.run_cost import RunCost
    from iwlora.training.recipe import Recipe


def add_parser(commands: Commands) -> None:
    """Add ``iwlora train``."""
    parser = add_command(commands, "train", run, __doc__)
    parser.add_argument(
        "recipe", help="a recipe: a YAML file; or a file of data, for which a recipe is suggested"
    )
    add_overrides(parser, "train.lr=1e-3 method.rank=4")
    parser.add_argument(
        "--out",
        type=normalize_path,
        help="the folder of the run; default: runs/ and the name of the recipe or file",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train a few steps, print the predicted time and memory, and write nothing "
        "but the list of rows that cannot be used",
    )
    parser.add_argument(
        "--floors",
        choices=("all", "constant"),
        default="all",
        help="all: compare the score with simple rules; constant: only with the best constant "
        "prediction",
    )
    add_log_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, and print the scores; with ``--dry-run`` print the estimate instead."""
    from iwlora.training.suggestion.data_argument import default_folder, is_data

    is_first = os.environ.get("RANK", "0") == "0"  # of several processes only the first prints
    report = event_printer(arguments, few_lines()) if is_first else ignore
    data = arguments.recipe if is_data(arguments.recipe) else None
    trains = not arguments.dry_run and "task.on_bad=report" not in arguments.overrides
    if arguments.out is None and trains:
        arguments.out = default_folder(arguments.recipe)
    recipe = _load(arguments) if data is None else _suggest(arguments, report)
    if recipe.task.on_bad == "report":
        return print_bad_rows([recipe.task], arguments.out)
    if arguments.dry_run:
        from iwlora.training.dry_run.run_cost import estimate_run_cost
        from iwlora.training.state.bad_rows import bad_rows_file

        cost = estimate_run_cost(recipe, bad_rows=bad_rows_file(arguments.out))
        if is_first:
            print(_dry_run_text(recipe, cost))
        return 0
    report(_started(recipe, arguments.out))  # before the imports, which take seconds
    from iwlora.results.run import load_run
    from iwlora.training.run import train

    shows_bar = draws_progress(arguments)
    shown = True if shows_bar and is_first else report
    train(recipe, arguments.out, progress=shown, floors=arguments.floors)
    if not is_first:
        return 0
    result = load_run(arguments.out).result
    finished = _finished(result)
    if arguments.log_format == "json":
        print_json(finished)
        return 0
    for note in result.notes:
        print(f"note: {note}")
    print(finished)
    return 0


def _started(recipe: Recipe, out: str) -> Event:
    label, seed = recipe.label or recipe.method.name, recipe.train.seed
    named = {"label": label, "method": recipe.method.name, "model": recipe.model}
    named |= {"task": recipe.task.title, "run": str(out)}
    text = f"{label} on {recipe.task.title}, seed {seed}: into {out}"
    return Event("started", text, seed=seed, **named)


def _finished(result: RunResult) -> Event:
    from iwlora.compare.report.floor_verdict import floor_verdict

    scores = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    lost = result.left_out_rows.get(result.evaluated_on or "", 0)
    rows = f", without {_rows(lost)} that cannot be used" if lost else ""
    text = f"{result.label}, seed {result.seed}: {scores} ({result.evaluated_on}{rows})"
    if verdict := floor_verdict(result.primary_metric, result.floors):
        text += f"\n{result.label} {verdict}"
    shown = ("label", "seed", "metrics", "primary_metric", "evaluated_on", "train_seconds", "notes")
    fields = {name: getattr(result, name) for name in shown}
    return Event("finished", text, floors=[f.model_dump() for f in result.floors], **fields)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _load(arguments: argparse.Namespace) -> Recipe:
    from iwlora.training.recipe import load

    return load(arguments.recipe, arguments.overrides)


def _suggest(arguments: argparse.Namespace, report: Report) -> Recipe:
    """The recipe for a file of data, which is reported."""
    data = arguments.recipe
    report(Event("reading", f"reading {data}", data=data))
    from iwlora.training.suggestion.recipe import suggest

    suggestion = suggest(arguments.recipe, arguments.overrides)
    recipe = suggestion.recipe
    report(suggested(suggestion))
    return recipe


def _dry_run_text(recipe: Recipe, cost: RunCost) -> str:
    """The budget, the time in its parts, and the memory with its arithmetic."""
    from iwlora.results.durations import format_duration

    memory = cost.memory
    rows = f"{cost.rows} × {cost.tokens} tokens" if cost.tokens else f"{cost.rows} images"
    parts = (
        f"{_mib(memory.before)} before (weights {_mib(memory.weights)})",
        f"{_mib(memory.state)} of the optimizer's state",
        f"{_mib(memory.activations)} of activations ({rows})",
        f"{_mib(memory.gradients)} of gradients",
        f"{_mib(memory.workspace)} of workspace",
    )
    sharing = "next to" if memory.accumulated else "instead of"
    return "\n".join(
        [
            f"{recipe.label or recipe.method.name} on {recipe.task.title}: "
            f"{cost.adapter_parameters:,} adapter parameters, "
            f"{cost.trainable_parameters:,} train",
            *_coverage(cost),
            f"training:    {cost.steps:,} steps of {cost.step_seconds:.3f} s: "
            f"{format_duration(cost.train_seconds)}",
            f"measuring:   {format_duration(cost.measure_seconds)}",
            *_filling(cost),
            f"scoring:     {format_duration(cost.score_seconds)}",
            f"loading:     {format_duration(cost.prepare_seconds)}",
            f"whole run:   about {format_duration(cost.seconds)}",
            f"peak memory: about {_mib(memory.peak)}; the largest step needs "
            f"{_mib(memory.tensors)}:",
            *(f"             {part}" for part in parts),
            f"             gradients are kept {sharing} activations; this dry run reached "
            f"{_mib(memory.reached)}",
        ]
    )


def _coverage(cost: RunCost) -> list[str]:
    if cost.coverage is None:
        return []
    return [f"adapted:     {cost.coverage:.1%} of the matrix parameters of the model's blocks"]


def _filling(cost: RunCost) -> list[str]:
    if not cost.fill_seconds:
        return []
    from iwlora.results.durations import format_duration

    return [f"frozen blocks: {format_duration(cost.fill_seconds)}, once for all epochs"]


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
