"""The command line: ``main`` reads the arguments, runs one command and reports its errors."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence

from iwlora import __version__
from iwlora.cli import compare, export, measure, methods, predict, report, tasks, train, verify
from iwlora.cli.library_logging import show_errors_only
from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.inputs.control_characters import visible, visible_output

_COMMANDS = (measure, train, compare, report, verify, export, predict, methods, tasks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 for success, 1 for an unfinished comparison, 2 for bad input, 130 when
        interrupted.
    """
    # At exit Python would search all imported modules for cycles, which takes more than a second.
    atexit.register(gc.freeze)
    parsed = parse(arguments)
    command: Callable[[argparse.Namespace], int | None] = parsed.command
    try:
        with name_missing_extra(), visible_output():
            if parsed.loads_models:
                show_errors_only()
            code = command(parsed) or 0
        sys.stdout.flush()  # a closed pipe shows here, not after the end
        return code
    except IwloraError as error:
        for line in str(error).splitlines():
            print(f"error: {visible(line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command; overrides (``key=value``) may stand before, between and after options."""
    parser = argparse.ArgumentParser(
        prog="iwlora",
        description="Measure which weight matrices matter, fine-tune with importance-weighted "
        "LoRA, and compare fine-tuning methods fairly.",
        epilog="'iwlora COMMAND --help' explains a command and shows an example.",
    )
    parser.add_argument("--version", action="version", version=f"iwlora {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    parsed, extra = parser.parse_known_args(arguments)
    assignments = getattr(parsed, "overrides", getattr(parsed, "sources", None))
    unknown = [text for text in extra if assignments is None or text.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if assignments is not None:
        assignments.extend(extra)
    return parsed
