"""Print a recipe for a file of data, with a comment on each field.

Example:
    iwlora init reviews.csv > recipe.yaml
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command, add_overrides


def add_parser(commands: Commands) -> None:
    """Add ``iwlora init``."""
    parser = add_command(commands, "init", run, __doc__, prints_result=True)
    parser.add_argument("data", help="the training data: a file, or a folder")
    add_overrides(parser, "task.label=stars model=bert-base-uncased")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="the recipe of a comparison, as `iwlora compare` runs it on the same data",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the recipe as YAML."""
    if arguments.compare:
        from iwlora.compare.plan.suggestion import suggest_comparison as suggest
    else:
        from iwlora.training.suggestion.recipe import suggest
    print(suggest(arguments.data, arguments.overrides).commented(), end="")
