"""List the tasks, describe one of them, or average GLUE scores.

Example:
    iwlora tasks show --task builtin/entailment
"""

from __future__ import annotations

import argparse
import json

from iwlora.cli.terminal.arguments import Commands, add_command, add_overrides, build_task_recipe
from iwlora.results.writing import check_output, check_writable


def add_parser(commands: Commands) -> None:
    """Add ``iwlora tasks`` with its two subcommands."""
    lists = {"loads_models": False, "prints_result": True}
    parser = add_command(commands, "tasks", run, __doc__, **lists)
    subcommands = parser.add_subparsers(metavar="[show | average]")
    show = add_command(subcommands, "show", _show, _show.__doc__, prints_result=True)
    show.add_argument("--task", help="a name from 'iwlora tasks'; or give task.train=FILE ...")
    show.add_argument(
        "--model", default="builtin/minilm", help="the model whose tokenizer counts tokens"
    )
    show.add_argument("--sheet", metavar="FILE", help="write images of each class into a PNG file")
    add_overrides(
        show, "task.train=FILE task.max_train=1000 train.max_length=256; FILE alone is task.train"
    )
    average = add_command(subcommands, "average", _average, _average.__doc__, **lists)
    average.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="folders of runs and comparisons"
    )


def run(_arguments: argparse.Namespace) -> None:
    """List the tasks."""
    from iwlora.tasks import list_tasks

    rows = list_tasks()
    name, kind = (max(len(getattr(row, field)) for row in rows) for field in ("name", "kind"))
    for row in rows:
        details = f"{', '.join(row.metrics)}; {', '.join(row.splits)}"
        print(f"{row.name:<{name}} {row.kind:<{kind}} {row.summary} ({details})")
    print(
        "your own files: task.train=FILE; set task.text, task.label and task.kind "
        "where they cannot be guessed"
    )


def _show(arguments: argparse.Namespace) -> None:
    """Describe the data of a task: its splits, likely problems, and what to change in a recipe.

    Example:
        iwlora tasks show reviews.csv train.max_length=256
    """
    from iwlora.training.overrides import is_assignment
    from iwlora.training.suggestion.look import look_at_data

    arguments.overrides = [
        text if is_assignment(text) else f"task.train={json.dumps(text)}"
        for text in arguments.overrides
    ]
    if arguments.sheet is not None:
        check_output(arguments.sheet, "--sheet")
        check_writable(arguments.sheet, "--sheet")
    print(look_at_data(build_task_recipe(arguments, "full"), arguments.sheet))


def _average(arguments: argparse.Namespace) -> None:
    """Print GLUE averages of runs: the mean of the tasks' means, and the mean of all scores.

    Example:
        iwlora tasks average runs/glue-*
    """
    from iwlora.compare.report.glue_average import average_table

    print(average_table(arguments.folders))
