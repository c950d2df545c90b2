"""How the events of a run or a comparison are printed: as lines, as JSON Lines, or not at all."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from iwlora.results.events import Event, Report, ignore

LINE_SECONDS = 30.0
"""Lines on single training steps are printed no more often than this."""


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` and ``--log-format``."""
    parser.add_argument(
        "--quiet", action="store_true", help="print the result and errors, and no progress"
    )
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="json: print one JSON object for each event, the result too, on standard output",
    )


def event_printer(arguments: argparse.Namespace, lines: Report) -> Report:
    """What prints events as the options say; ``lines`` prints them for people."""
    if arguments.log_format == "json":
        return print_json
    return ignore if arguments.quiet else lines


def draws_progress(arguments: argparse.Namespace) -> bool:
    """Whether a bar or a table is drawn: where people watch, and want no other form."""
    return sys.stderr.isatty() and not arguments.quiet and arguments.log_format == "text"


def print_json(event: Event) -> None:
    """Print an event as a JSON object: its name, the time in UTC, its fields and its text."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    record = {"event": event.name, "time": now, **event.fields, "text": str(event)}
    print(json.dumps(_finite(record), ensure_ascii=False), flush=True)


def print_now(text: str) -> None:
    """Print a line for people, although standard output may be a file."""
    print(text, flush=True)


def _finite(value: Any) -> Any:
    """With null for numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def few_lines(clock: Callable[[], float] = time.monotonic) -> Report:
    """Prints events, those of single steps every ``LINE_SECONDS`` only."""
    printed = clock()

    def report(event: Event) -> None:
        nonlocal printed
        if event.name != "step" or clock() - printed >= LINE_SECONDS:
            printed = clock()
            print_now(event)

    return report
