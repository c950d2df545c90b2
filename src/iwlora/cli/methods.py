"""List the fine-tuning methods and the architectures that each supports.

Example:
    iwlora methods
"""

from __future__ import annotations

import argparse

from iwlora.cli.arguments import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Add ``iwlora methods``."""
    add_command(commands, "methods", run, __doc__, prints_result=True)


def run(_arguments: argparse.Namespace) -> None:
    """Print each method with its options, then try each on a tiny model of each architecture."""
    from iwlora.methods import METHODS
    from iwlora.methods.architecture_support import support_table, try_methods

    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        size = f"size: {method.size_knob}" if method.size_knob else "no size to set"
        options = ", ".join(f"{key}={field.default}" for key, field in method.model_fields.items())
        print(f"{name:<{width}} {method.summary} ({method.paper}; {size})")
        if options:
            print(f"{'':<{width}} {options}")
    print(flush=True)
    print(support_table(try_methods({name: method() for name, method in METHODS.items()})))
