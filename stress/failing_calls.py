"""Let each system call of a command fail once: is the end true, and can the command be repeated?

    python stress/failing_calls.py                       # all commands, all calls
    python stress/failing_calls.py --only train --most 50

Every call that opens, writes, flushes, renames or removes a file among inputs, outputs and caches
is counted in an undisturbed run of the command. Then the command is executed once for each of them,
and strace makes this one fail with ENOSPC, EIO or EACCES. Processes are forked from this one, which
has imported everything, and the calls are counted after that. A case fails if the command

- ends with 0 and its result is not, byte for byte but for times, that of the undisturbed run,
- ends otherwise without a message, with a traceback or by a signal, or hangs,
- loses an input or an earlier result,
- or does not end with the undisturbed result when it is repeated without a failure.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# A process with threads cannot be forked.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

from system_calls.commands import Command, Study, read_files
from system_calls.strace import (
    ERRORS,
    Call,
    Ending,
    failed_call,
    recorded_calls,
    unavailable,
)

OUTCOMES = ("message", "complete", "not reached", "FAILED")


@dataclass(frozen=True)
class Undisturbed:
    """A command to which nothing happens.

    Args:
        calls: Its system calls on files below the working folder.
        results: What it leaves.
        files: All files below the working folder, before and after it.
        ending: How it ends.
    """

    calls: list[Call]
    results: Any
    files: tuple[dict[str, bytes], dict[str, bytes]]
    ending: Ending


def observe(study: Study, command: Command) -> Undisturbed:
    """Execute a command without a failure, twice: what differs is no result."""
    study.restore(command.start)
    study.execute(command.arguments)
    results = command.results()
    study.restore(command.start)
    ending = study.execute(command.arguments, trace=True)
    if ending.code:
        raise SystemExit(f"{' '.join(command.arguments)} fails undisturbed: {ending.err}")
    if results != command.results():
        raise SystemExit(f"{' '.join(command.arguments)} does not leave the same twice")
    calls = recorded_calls(study.logs / "calls", study.work)
    files = study.start_files(command.start), read_files(study.work)
    return Undisturbed(calls, results, files, ending)


def choose(calls: Sequence[Call], most: int) -> list[Call]:
    """At most ``most`` calls: first one of each name, path and purpose, then others at random."""
    groups: dict[tuple[str, str, bool], Call] = {}
    for call in calls:
        groups.setdefault((call.name, call.path, call.writes), call)
    first = [*groups.values()]
    others = [call for call in calls if call not in first]
    chosen = [*first, *random.Random(0).sample(others, len(others))][:most]
    return [call for call in calls if call in chosen]


def failures(
    study: Study, command: Command, undisturbed: Undisturbed, most: int
) -> Iterator[tuple[Call, str, str, str]]:
    """(call, error, outcome, details) of each case of a command."""
    numbers: Counter[str] = Counter()
    for call in choose(undisturbed.calls, most):
        error = ERRORS[call.name][numbers[call.name] % len(ERRORS[call.name])]
        numbers[call.name] += 1
        study.restore(command.start)
        ending = study.execute(command.arguments, call.failing(error))
        failed = failed_call(study.logs / "calls", study.work)
        problem = problem_of(study, command, undisturbed, ending)
        if problem:
            outcome = "FAILED"
        elif failed is None:
            outcome = "not reached"
        else:
            outcome = "message" if ending.code else "complete"
        details = f"{problem}\n{ending.out}{ending.err}" if problem else ending.err
        if failed and failed.path != call.path:
            details = f"{details}(it was {failed.name} on {failed.path})"
        yield call, error, outcome, details


def problem_of(study: Study, command: Command, undisturbed: Undisturbed, ending: Ending) -> str:
    """What is wrong with the end of a command and with what it left; empty if nothing is."""
    if problem := problem_of_ending(ending, command.prints):
        return problem
    before, after = undisturbed.files
    if ending.code == 0:  # what it replaced is its result
        before = {name: content for name, content in before.items() if after.get(name) == content}
    if lost := lost_files((before, after), read_files(study.work), command.progress):
        return f"lost {', '.join(lost)}"
    if ending.code == 0:
        return incomplete(command, undisturbed, ending)
    again = study.execute(command.arguments)
    if again.code:
        return f"the next start ends with {again.code}: {again.err}"
    problem = incomplete(command, undisturbed, again)
    return problem and f"after the next start: {problem}"


def problem_of_ending(ending: Ending, prints: bool = False) -> str:
    """What is wrong with an exit code and its message; empty if nothing is."""
    if "Traceback (most recent call last)" in ending.err:
        return f"a traceback, exit {ending.code}"
    if ending.code not in (0, 1, 2):
        return f"exit {ending.code}"
    explained = "error: " in ending.err or (prints and ending.code == 1 and bool(ending.out))
    return "" if ending.code == 0 or explained else "no message"


def lost_files(
    files: tuple[dict[str, bytes], dict[str, bytes]],
    now: dict[str, bytes],
    progress: Sequence[str],
) -> list[str]:
    """Files of the start that are neither as they were nor as the undisturbed command left them."""
    before, after = files
    return [
        name
        for name, content in before.items()
        if not name.startswith("cache/")
        and name not in progress
        and now.get(name) not in (content, after.get(name))
    ]


def incomplete(command: Command, undisturbed: Undisturbed, ending: Ending) -> str:
    """How the result of a command that ended with 0 differs; empty if it does not."""
    try:
        results = command.results()
    except (OSError, ValueError, KeyError) as error:
        return f"exit 0, and the result is not there ({error!r})"
    if results != undisturbed.results:
        return "exit 0, and the result is another one"
    if command.prints and ending.out != undisturbed.ending.out:
        return "exit 0, and it printed something else"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="COMMAND", help="rows of the table")
    parser.add_argument("--most", type=int, default=10**6, help="the most calls of a command")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    arguments = parser.parse_args()
    if reason := unavailable():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder))
        study.make_states()
        rows: list[tuple[str, ...]] = [("command", "calls", "cases", *OUTCOMES)]
        total: Counter[str] = Counter()
        for name in arguments.only or study.commands:
            counts, calls = try_command(study, name, arguments.most, arguments.verbose)
            print(f"{name}: {dict(counts)} of {calls} calls", file=sys.stderr, flush=True)
            total += counts
            rows.append((name, str(calls), *table_cells(counts)))
    print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    return 1 if total["FAILED"] else 0


def try_command(
    study: Study, name: str, most: int, verbose: bool = False
) -> tuple[Counter[str], int]:
    """({outcome: cases}, calls) of a command; what fails is printed."""
    command = study.commands[name]
    undisturbed = observe(study, command)
    counts: Counter[str] = Counter()
    for call, error, outcome, details in failures(study, command, undisturbed, most):
        counts[outcome] += 1
        if verbose or outcome == "FAILED":
            where = f"{name}: {call.name} {call.number} on {call.path}, {error}"
            print(f"{where}: {outcome}: {details}\n", flush=True)
    return counts, len(undisturbed.calls)


def table_cells(counts: Counter[str]) -> list[str]:
    return [str(sum(counts.values())), *(str(counts[outcome]) for outcome in OUTCOMES)]


if __name__ == "__main__":
    sys.exit(main())
