"""The command line: ``main`` reads the arguments, runs one command and reports its errors."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from iwlora import __version__
from iwlora.cli import (
    advise,
    codes,
    compare,
    design,
    init,
    measure,
    methods,
    report,
    tasks,
    train,
    verify,
)
from iwlora.cli.terminal.arguments import prints_its_result
from iwlora.cli.terminal.library_logging import show_errors_only
from iwlora.cli.terminal.streams import LastingOutput, lasting_streams
from iwlora.cli.terminal.termination import ending_by_sigterm
from iwlora.cli.using import compose, export, generate, predict
from iwlora.errors import IwloraError, is_out_of_memory, os_error_text, truncate
from iwlora.extras import name_missing_extra
from iwlora.inputs.control_characters import visible, visible_output

_COMMANDS = (
    *(measure, advise, init, train, compare, design, report, verify, export, predict, compose),
    *(methods, tasks, codes, generate),
)


_LESS_MEMORY = (
    "less is needed with a smaller train.batch_size or train.max_length, with train.accumulate=4, "
    "or with train.gradient_checkpointing=true"
)
_READER_GONE = 141
"""The exit code that a shell gives to a program which was ended because its reader was gone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 if and only if the result exists and is complete, 1 for an unfinished
        comparison, a run that is not intact and rows that ``task.on_bad=report`` lists, 2 for bad
        input and for a result that cannot be written, 130 when interrupted, 141 if what was to be
        printed lost its reader. SIGTERM ends the process, for which shells say 143.
    """
    # At exit Python would search all imported modules for cycles, which takes more than a second.
    atexit.register(gc.freeze)
    with ending_by_sigterm(), lasting_streams() as output:
        try:
            parsed = parse(arguments)
        except SystemExit as end:  # help and version are printed
            raise SystemExit(_printed(end.code, output)) from None
        code = _run(parsed)
        return _printed(code, output) if prints_its_result(parsed) else code


def _run(parsed: argparse.Namespace) -> int:
    """Run a parsed command and report its errors; returns the exit code."""
    command: Callable[[argparse.Namespace], int | None] = parsed.command
    try:
        _check_working_directory()
        with name_missing_extra(), visible_output():
            if parsed.loads_models:
                show_errors_only()
            return command(parsed) or 0
    except IwloraError as error:
        _print_error(str(error))
    except KeyboardInterrupt as interrupt:
        print(": ".join(filter(None, ["interrupted", visible(str(interrupt))])), file=sys.stderr)
        print(f"to go on: {visible(shlex.join(['iwlora', *parsed.given]))}", file=sys.stderr)
        return 130
    except OSError as error:
        _print_error(os_error_text(error))
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        _print_error(f"out of memory ({truncate(str(error)) or 'no details'}); {_LESS_MEMORY}")
    return 2


def _check_working_directory() -> None:
    """Raise ``IwloraError`` if it was removed: libraries end the process where they miss it."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise IwloraError(
            "the folder from which this command was started no longer exists; "
            "change to another one, and run the same command again"
        ) from None


def _printed(code: Any, output: LastingOutput | None) -> Any:
    """The exit code of a command whose result is what it prints."""
    sys.stdout.flush()  # an error shows here, not after the end
    if code or output is None or output.error is None:
        return code
    if isinstance(output.error, BrokenPipeError):
        return _READER_GONE
    _print_error(f"cannot print the result: {output.error.strerror or output.error}")
    return 2


def _print_error(text: str) -> None:
    for line in visible(text).splitlines():
        print(f"error: {line}", file=sys.stderr)


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
    given = sys.argv[1:] if arguments is None else arguments
    for before, text in pairwise(["", *given]):
        if not text or (text.startswith("--") and text.endswith("=")):
            name = text[:-1] or (before if before.startswith("--") else "an argument")
            parser.error(f"{name}: an empty value was given; give a name, or leave it out")
    parsed, extra = parser.parse_known_args(arguments)
    parsed.given = given
    assignments = getattr(parsed, "overrides", getattr(parsed, "sources", None))
    unknown = [text for text in extra if assignments is None or text.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if assignments is not None:
        assignments.extend(extra)
    return parsed
