"""Put finished runs into a pool, whose sources are chosen when rows are predicted.

Example:
    iwlora compose a=runs/a b=runs/b --out pool/
    iwlora compose pool/ --remove b --out pool2/
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command, add_trust_remote_code, names


def add_parser(commands: Commands) -> None:
    """Add ``iwlora compose``."""
    parser = add_command(commands, "compose", run, __doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]RUN",
        help="folders of finished runs, by default named as the folder; or one pool",
    )
    parser.add_argument("--out", required=True, help="the new folder to write")
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="[NAME=]RUN",
        help="a run that the pool gets in addition; may be repeated",
    )
    parser.add_argument(
        "--remove",
        type=names,
        action="extend",
        default=[],
        metavar="NAME[,NAME]",
        help="sources that the new pool does not have",
    )
    parser.add_argument(
        "--weights",
        choices=("mean", "prototypes"),
        help="mean: all sources count the same (default); prototypes: a source counts the more, "
        "the nearer a row is to the rows that it was trained on",
    )
    parser.add_argument(
        "--average",
        choices=("probabilities", "logits"),
        help="what is averaged; default: probabilities, and numbers of a regression",
    )
    add_trust_remote_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the pool, and print its folder."""
    from iwlora.compose.compose import compose

    pool = compose(
        arguments.runs,
        arguments.out,
        add=arguments.add,
        remove=arguments.remove,
        weights=arguments.weights,
        average=arguments.average,
        trust_remote_code=arguments.trust_remote_code,
    )
    print(pool)
