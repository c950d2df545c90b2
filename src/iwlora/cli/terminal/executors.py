"""How the runs of a command are trained: ``--jobs`` and ``--executor``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from iwlora.results.events import Report

if TYPE_CHECKING:
    from iwlora.compare.execute.executor import Executor
    from iwlora.compare.plan.planned_runs import Plan


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs`` and ``--executor``."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="how many runs at once; each gets an equal share of the cores, and GPUs in turn; "
        "default 1, the only number for packed runs",
    )
    parser.add_argument(
        "--executor",
        choices=["auto", "local", "ray", "packed"],
        default="auto",
        help="how the runs are trained: local, each in a process of this machine; packed, many "
        "together over one frozen model; ray, on a Ray cluster; auto (default): packed with "
        "--jobs 1 where 8 or more runs can be packed, on a GPU, or if a short measurement on the "
        "CPU finds it 1.2 times faster; else local",
    )


def executor_maker(
    plan: Plan, folder: Path, arguments: argparse.Namespace, announce: Report, alone: bool = True
) -> Callable[[IO[str]], Executor]:
    """What makes the executor of a comparison from the open lock file of its folder.

    Args:
        plan: The comparison.
        folder: Its folder.
        arguments: With ``jobs`` and ``executor``.
        announce: Gets the events.
        alone: Whether this process does nothing else, so that runs can be forked from it.
    """
    from iwlora.compare.execute.local import LocalExecutor
    from iwlora.compare.execute.packed.executor import PackedExecutor
    from iwlora.compare.execute.ray import RayExecutor

    executors: dict[str, Callable[[int, IO[str]], Executor]] = {
        "local": partial(LocalExecutor, from_here=alone),
        "ray": RayExecutor,
        "packed": PackedExecutor,
    }

    def make(lock: IO[str]) -> Executor:
        return executors[chosen_executor(plan, folder, arguments, announce)](arguments.jobs, lock)

    return make


def chosen_executor(
    plan: Plan, folder: Path, arguments: argparse.Namespace, announce: Report
) -> str:
    """The executor that was asked for, or that packs pay or do not."""
    from iwlora.compare.execute.packed.choice import packs_pay

    if arguments.executor != "auto":
        return str(arguments.executor)
    pays = packs_pay(plan, Path(folder), arguments.jobs, announce)
    return "packed" if pays else "local"
