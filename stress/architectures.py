"""Take a tiny model of every family of the installed transformers through the whole tool.

    python stress/architectures.py [FAMILY ...]

Measure, train three steps, save, load, predict, export, load by PEFT: see ``families/journey.py``.
The families come from the Auto classes of transformers, each with one of the kinds of tasks that it
can do (with all of them: ``--every-kind``). ``tests/architectures`` does the same for six families.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from families.catalogue import families, one_kind_each
from families.left_out import LEFT_OUT
from families.outcomes import LeftOut, Outcome, run_family

METHODS = ("lora", "iw-lora")
FAMILIES_A_PROCESS = 40  # then a new one takes over: caches of the libraries grow


@dataclass(frozen=True)
class Row:
    """A row of the table: a family, and why it is left out or what is wrong."""

    outcome: Outcome
    left_out: str | None

    @property
    def fails(self) -> bool:
        return self.outcome.result != "equal" and self.left_out is None

    def __str__(self) -> str:
        outcome = self.outcome
        result = "LEFT OUT" if self.left_out else outcome.result
        text = " | ".join(filter(None, (self.left_out, outcome.message[:300])))
        names = f"{outcome.family:<26} {outcome.kind:<18} {outcome.method:<8}"
        return f"{names} {result.upper() if self.fails else result:<12} {text}".rstrip()


def rows(outcomes: Sequence[Outcome], known: Sequence[LeftOut]) -> list[Row]:
    """Outcomes with the reason for each that is accepted."""
    return [
        Row(outcome, next((row.reason for row in known if row.accepts(outcome)), None))
        for outcome in outcomes
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; the exit status is 1 for a wrong result or an unknown reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default: all families")
    parser.add_argument("--every-kind", action="store_true", help="every kind of task of a family")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes; default 2")
    options = parser.parse_args(arguments)
    kinds = families()
    if unknown := set(options.families) - set(kinds):
        parser.error(f"transformers has no family {', '.join(sorted(unknown))}")
    pairs = [(family, kind) for family, possible in kinds.items() for kind in possible]
    pairs = pairs if options.every_kind else one_kind_each(kinds)
    pairs = [pair for pair in pairs if not options.families or pair[0] in options.families]
    started = time.perf_counter()
    table = []
    for outcomes in _run_all(pairs, options.jobs):
        new = rows(outcomes, LEFT_OUT)
        table += new
        print(*new, sep="\n", flush=True)
    return _summary(table, time.perf_counter() - started)


def _run_all(pairs: Sequence[tuple[str, str]], jobs: int) -> Iterator[tuple[Outcome, ...]]:
    if jobs == 1:
        yield from map(_run, pairs)
        return
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, _start_process, maxtasksperchild=FAMILIES_A_PROCESS) as pool:
        yield from pool.imap_unordered(_run, pairs)


def _summary(table: Sequence[Row], seconds: float) -> int:
    """Print the counts; returns the exit status."""
    failed = sorted({row.outcome.family for row in table if row.fails})
    left_out = sorted({row.outcome.family for row in table if row.left_out} - set(failed))
    right = {row.outcome.family for row in table} - set(failed) - set(left_out)
    print(f"\n{len(right)} families with equal results, {len(left_out)} left out, {seconds:.0f} s")
    if failed:
        names = ", ".join(failed)
        print(f"{len(failed)} families with a wrong result or an unknown reason: {names}")
    return bool(failed)


def _start_process() -> None:
    """Import once what every family needs, and silence the libraries."""
    import torch

    from iwlora.cli.terminal.library_logging import show_errors_only

    torch.set_num_threads(1)
    show_errors_only()
    logging.getLogger("iwlora").setLevel(logging.ERROR)


def _run(pair: tuple[str, str]) -> tuple[Outcome, ...]:
    return run_family(*pair, METHODS)


if __name__ == "__main__":
    sys.exit(main())
