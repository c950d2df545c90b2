"""Say whether a run's files, and its inputs, are what they were.

Example:
    iwlora verify runs/a --inputs
"""

from __future__ import annotations

import argparse

from iwlora.cli.arguments import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Add ``iwlora verify``."""
    parser = add_command(commands, "verify", run, __doc__)
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument(
        "--inputs", action="store_true", help="read the data and the model again too"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the state of each thing; returns 0 if all are intact, else 1."""
    from iwlora.training.state.verify import verify

    checks = verify(arguments.run, arguments.inputs)
    for check in checks:
        print(f"{check.state:8} {check.name}{': ' if check.detail else ''}{check.detail}")
    return 0 if all(check.state == "intact" for check in checks) else 1
