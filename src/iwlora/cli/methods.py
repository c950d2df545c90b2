"""List the fine-tuning methods and the architectures that each supports.

Example:
    iwlora methods
"""

from __future__ import annotations

import argparse
import json

from iwlora.cli.terminal.arguments import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Add ``iwlora methods``."""
    parser = add_command(commands, "methods", run, __doc__, prints_result=True)
    parser.add_argument(
        "--try",
        action="store_true",
        dest="tries",
        help="print only which architectures each method supports, after trying all of them with "
        "the installed versions of transformers and PEFT",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print each method with its options, and which architectures it supports."""
    from iwlora.methods import METHODS
    from iwlora.methods.architecture_support import shipped_table, support_table, try_methods

    if arguments.tries:
        print(support_table(try_methods({name: method() for name, method in METHODS.items()})))
        return
    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        size = f"size: {method.size_knob}" if method.size_knob else "no size to set"
        size = "divides a budget" if method.divides_budgets else size
        options = ", ".join(
            f"{key}={_in_yaml(field.default)}" for key, field in method.model_fields.items()
        )
        print(f"{name:<{width}} {method.summary} ({method.paper}; {size})")
        if options:
            print(f"{'':<{width}} {options}")
    print(f"\n{shipped_table()}", flush=True)
    others = {
        name: method()
        for name, method in METHODS.items()
        if not method.__module__.startswith("iwlora.")
    }
    if others:
        print(f"\nmethods of other packages, tried now:\n{support_table(try_methods(others))}")
    print("'iwlora methods --try' tries all with the installed versions of transformers and PEFT")


def _in_yaml(value: object) -> str:
    """A default as a recipe has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
