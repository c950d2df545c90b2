"""Save a finished run as a PEFT adapter, or as a merged model.

Example:
    iwlora export runs/a --to adapter/
"""

from __future__ import annotations

import argparse

from iwlora.cli.arguments import Commands, add_command, add_trust_remote_code


def add_parser(commands: Commands) -> None:
    """Add ``iwlora export``."""
    parser = add_command(commands, "export", run, __doc__)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("--to", required=True, help="the new folder to write")
    parser.add_argument(
        "--merge", action="store_true", help="save a whole model with the adapter merged into it"
    )
    add_trust_remote_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Save a run as an adapter or a model, and print the folder."""
    from iwlora.training.state.artifacts import export

    print(export(arguments.run, arguments.to, arguments.merge, arguments.trust_remote_code))
