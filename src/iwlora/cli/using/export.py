"""Save a finished run as a PEFT adapter, or as a merged model.

Example:
    iwlora export runs/a --to adapter/
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command, add_trust_remote_code
from iwlora.errors import IwloraError


def add_parser(commands: Commands) -> None:
    """Add ``iwlora export``."""
    parser = add_command(commands, "export", run, __doc__)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("--to", required=True, help="the new folder to write")
    parser.add_argument(
        "--merge", action="store_true", help="save a whole model with the adapter merged into it"
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then upload the folder to this repository of the Hugging Face hub (HF_TOKEN, "
        "HF_ENDPOINT)",
    )
    parser.add_argument(
        "--private", action="store_true", help="make the repository private, if --push makes it"
    )
    add_trust_remote_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Save a run as an adapter or a model, and print the folder; upload it if asked to."""
    if arguments.push is None and arguments.private:
        raise IwloraError("--private is for --push OWNER/NAME; add it, or leave out --private")
    from iwlora.training.sharing.export import export
    from iwlora.training.sharing.push import check_push, push

    if arguments.push is not None:
        check_push(arguments.push)
    folder = export(arguments.run, arguments.to, arguments.merge, arguments.trust_remote_code)
    print(folder, flush=True)
    if arguments.push is not None:
        print(push(folder, arguments.push, arguments.private))
