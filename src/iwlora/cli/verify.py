"""Check whether files of a run, comparison, search, export or pool have changed, or its inputs.

Example:
    iwlora verify runs/a --inputs
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command
from iwlora.errors import IwloraError
from iwlora.results.layout import is_pool


def add_parser(commands: Commands) -> None:
    """Add ``iwlora verify``."""
    parser = add_command(commands, "verify", run, __doc__, prints_result=True)
    parser.add_argument(
        "run", help="the folder of a run, a comparison, a design search, an export or a pool"
    )
    parser.add_argument(
        "--inputs", action="store_true", help="also read the data and the model again"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the state of each thing; returns 1 if something that matters is not intact."""
    if is_pool(arguments.run):
        from iwlora.compose.pool import verify as verify_pool

        if arguments.inputs:
            raise IwloraError("--inputs is for runs: a pool does not know where their data are")
        checks = verify_pool(arguments.run)
    else:
        from iwlora.training.state.verify import verify

        checks = verify(arguments.run, arguments.inputs)
    for check in checks:
        print(f"{check.state:8} {check.name}{': ' if check.detail else ''}{check.detail}")
    return 1 if any(check.state != "intact" and check.matters for check in checks) else 0
