"""Executes a comparison from its checks to its last run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from iwlora.compare.execute.comparison_folder import check_folder, lock_folder, with_stored_defaults
from iwlora.compare.execute.executor import Executor
from iwlora.compare.execute.local import LocalExecutor
from iwlora.compare.execute.progress import ProgressView
from iwlora.compare.execute.scheduler import Scheduler
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import check_budgets, check_task
from iwlora.inputs.paths import normalize_path


def run_comparison(
    plan: Plan,
    out: str | os.PathLike[str],
    make_executor: Callable[[IO[str]], Executor] | None = None,
    announce: Callable[[str], None] = print,
    view: ProgressView | None = None,
) -> list[PlannedRun]:
    """Execute the runs of a comparison that are not done yet.

    Args:
        plan: The comparison.
        out: Its folder.
        make_executor: Makes the executor from the open lock file of the folder; default: one
            process of this machine after the other.
        announce: Gets one line for each event.
        view: Shows the progress.

    Returns:
        The reported runs that failed twice or diverged.

    Raises:
        IwloraError: Before any run: the budgets are unequal, the data cannot be read, or a folder
            belongs to another recipe.
    """
    check_budgets(plan)
    check_task(plan)
    folder = normalize_path(out)
    check_folder(plan, folder)
    plan = with_stored_defaults(plan, folder)
    with lock_folder(folder, announce) as lock:
        executor = make_executor(lock) if make_executor else LocalExecutor(1, lock)
        scheduler = Scheduler(plan, folder, executor, announce)
        try:
            with _sigterm_as_interrupt():
                scheduler.prepare()
                return scheduler.execute(view)
        finally:
            executor.stop()
            if view:
                view.close()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a comparison as Ctrl-C does, together with its runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
