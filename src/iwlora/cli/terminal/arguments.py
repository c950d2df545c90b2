"""What several commands share: how a command is described, and arguments that mean the same."""

from __future__ import annotations

import argparse
import inspect
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from iwlora.results import layout
from iwlora.results.events import Event

if TYPE_CHECKING:
    from iwlora.tasks.spec import TaskSpec
    from iwlora.training.recipe import Recipe
    from iwlora.training.suggestion.recipe import Suggestion

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

BASELINE = (
    "the arm that the others are compared with; default: the recipe's baseline, else lora, else "
    "the first arm"
)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str | None,
    loads_models: bool = True,
    prints_result: bool = False,
) -> argparse.ArgumentParser:
    """Add a command; its help is a docstring: a sentence on what it does, then an example.

    While a command that loads models runs, the libraries print only errors. The result of a command
    that prints it is lost if it cannot be printed; that of any other is in files.
    """
    text = inspect.cleandoc(text or name)
    parser = commands.add_parser(
        name,
        help=text.partition("\n")[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run, loads_models=loads_models, prints_result=prints_result)
    return parser


def prints_its_result(arguments: argparse.Namespace) -> bool:
    """Whether the result of a command is what it prints: a list, a dry run, a comparison."""
    if getattr(arguments, "output", None) == "-":
        return True
    compares_measurements = isinstance(getattr(arguments, "compare", None), list)
    return arguments.prints_result or getattr(arguments, "dry_run", False) or compares_measurements


def add_overrides(parser: argparse.ArgumentParser, examples: str) -> None:
    """Add ``key=value`` arguments that set fields of the recipe."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=f"recipe fields to set, for example {examples}",
    )


def build_task_recipe(arguments: argparse.Namespace, method: Any) -> Recipe:
    """The recipe of ``--model``, ``--task`` and the overrides, with a method."""
    from iwlora.training.recipe import apply_overrides, build

    task = {"name": arguments.task} if arguments.task else {}
    settings = {"model": arguments.model, "task": task, "method": method}
    return build(apply_overrides(settings, arguments.overrides))


def print_bad_rows(specs: Sequence[TaskSpec], out: Path | None) -> int:
    """Do what ``task.on_bad=report`` asks for; 1 if rows cannot be used, else 0."""
    from iwlora.training.state.bad_rows import report_bad_rows

    text, bad = report_bad_rows(specs, out)
    print(text)
    return min(bad, 1)


def suggested(suggestion: Suggestion, option: str = "") -> Event:
    """The recipe that was chosen for a file of data, and how to change it."""
    data = shlex.quote(suggestion.data)
    lines = [
        f"recipe for {suggestion.data}; change a field as key=value, or write the recipe with",
        f"`iwlora init {data}{option} > {layout.RECIPE}` and edit it:",
        *suggestion.lines(),
    ]
    return Event("suggested", "\n".join(lines), data=suggestion.data, recipe=suggestion.settings)


def add_trust_remote_code(parser: argparse._ActionsContainer) -> None:
    """Add ``--trust-remote-code``, which commands that load a run's model take."""
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python code that comes with the run's model",
    )


def names(text: str) -> list[str]:
    """The names in an argument, with commas between.

    >>> names("a, c")
    ['a', 'c']
    """
    return [name for part in text.split(",") if (name := part.strip())]
