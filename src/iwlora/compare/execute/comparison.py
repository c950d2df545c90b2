"""Executes a comparison from its checks to its last run, and keeps others out of its folder."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from iwlora.compare.execute.executor import Executor
from iwlora.compare.execute.floors import write_floors
from iwlora.compare.execute.local import LocalExecutor
from iwlora.compare.execute.progress import TerminalProgress
from iwlora.compare.execute.scheduling.scheduler import Scheduler
from iwlora.compare.plan.frozen_layers import with_equal_frozen_layers
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import check_budgets, check_search, check_space, check_task
from iwlora.compare.plan.recipe import plan_settings
from iwlora.compare.statistics.learning_rate.rules import FORMER_RULE
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.results.comparison.record import ComparisonRecord
from iwlora.results.events import Event, Report
from iwlora.results.locks import exclusive_with_children
from iwlora.results.writing import output_folder
from iwlora.tasks.loading import reading_once
from iwlora.training.external_settings import check_external_settings
from iwlora.training.image_generation.source_model import make_missing_model
from iwlora.training.row_store.stored_rows import describe_kept
from iwlora.training.run import train
from iwlora.training.state.bad_rows import listing_bad_rows, save_bad_rows


@reading_once()
def run_comparison(
    plan: Plan,
    out: str | os.PathLike[str],
    make_executor: Callable[[IO[str]], Executor] | None = None,
    announce: Report = print,
    view: TerminalProgress | None = None,
    floors: bool = True,
) -> list[PlannedRun]:
    """Execute the runs of a comparison that are not done yet.

    Args:
        plan: The comparison.
        out: Its folder.
        make_executor: Makes the executor from the open lock file of the folder; default: one
            process of this machine after the other.
        announce: Gets one line for each event.
        view: Shows the progress.
        floors: Whether what simple rules score is computed beside the runs.

    Returns:
        The reported runs that failed twice or diverged.

    Raises:
        IwloraError: Before any run: a variable of the environment would change the runs, the
            budgets are unequal, the data cannot be read, a folder belongs to another recipe, or
            the disk has too little space.
    """
    check_external_settings([name for run in plan.runs for name in run.recipe.train.report_to])
    make_missing_model(plan.runs[0].recipe.model, train)
    budgets = check_budgets(plan)
    folder = output_folder(out, "comparison")
    plan = with_equal_frozen_layers(check_folder(plan, folder))
    with listing_bad_rows(folder / layout.BAD_ROWS):
        _, bad_rows = check_task(plan)
        steps = check_search(plan)
    check_space(plan, folder, budgets)
    with lock_folder(folder, announce) as lock:
        save_bad_rows(folder / layout.BAD_ROWS, bad_rows)
        executor = make_executor(lock) if make_executor else LocalExecutor(1, lock)
        scheduler = Scheduler(plan, folder, executor, announce, steps)
        try:
            with _sigterm_as_interrupt():
                scheduler.prepare()
                failed = scheduler.execute(view)
                if floors:
                    write_floors(plan, folder, announce)
                kept, size = describe_kept(folder)
                if kept:
                    announce(Event("frozen layers", kept, bytes=size))
                return failed
        except KeyboardInterrupt:
            executor.stop()
            raise KeyboardInterrupt(scheduler.kept()) from None
        finally:
            executor.stop()
            if view:
                view.close()


def check_folder(plan: Plan, folder: Path) -> Plan:
    """Check that a folder is empty or holds a part of the planned comparison.

    A comparison may grow by arms and seeds. One that has other arms or seeds would lose its
    report.

    Returns:
        The plan with the defaults of the version of iwlora that began the comparison, and with the
        rule of its search.

    Raises:
        IwloraError: The folder holds something else.
    """
    if (folder / layout.COMPARISON).is_file():
        record = ComparisonRecord.load(folder / layout.COMPARISON)
        for field, stored in (("methods", record.methods), ("seeds", record.seeds)):
            planned = getattr(plan.record(), field)
            if lacking := [str(value) for value in stored if value not in planned]:
                raise IwloraError(
                    f"{folder} holds a comparison with the {field} {', '.join(lacking)}, "
                    "which this one lacks; choose another folder"
                )
        if record.stop and not record.stop.promises_the_same(plan.stop):
            raise IwloraError(
                f"{folder} holds a comparison with stop={record.stop.model_dump()}; only max_seeds "
                "may change, because its promises were made before its scores were seen; choose "
                "another folder"
            )
        if record.race and not record.race.goes_on(plan.race):
            raise IwloraError(
                f"{folder} holds a race with {record.race.model_dump()}; only further draws may be "
                "added, because its promises were made before its scores were seen; choose another "
                "folder"
            )
        plan = _with_rule_of_search(plan, record)
        if record.follows_former_defaults:
            return plan.with_former_defaults(record.recipe_format)
    elif folder.is_dir():
        accepted = {layout.LOCK, layout.LOGS, layout.BAD_ROWS, *plan.labels}
        if other := sorted(file.name for file in folder.iterdir() if file.name not in accepted):
            raise IwloraError(f"{folder} holds {other[0]} and no comparison; choose another folder")
    return plan


def _with_rule_of_search(plan: Plan, record: ComparisonRecord) -> Plan:
    """The plan with the rule that the stored comparison began with, unless the recipe names one."""
    search = plan.settings.get("search")
    if not record.searched or not isinstance(search, Mapping) or "rule" in search:
        return plan
    rule = record.search_rule or FORMER_RULE
    return plan_settings({**plan.settings, "search": {**search, "rule": rule}})


@contextmanager
def lock_folder(folder: Path, announce: Report) -> Iterator[IO[str]]:
    """Create the folder, and lock it for this process and the runs that it starts.

    A run outlives a comparison that was killed. Since the runs keep the lock file open, the next
    start waits for them instead of writing into their folders.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / layout.LOCK).touch()
    except OSError as error:
        raise IwloraError(f"cannot write into {folder}: {error.strerror}") from None
    text = f"{folder} is in use by another comparison or its last run; waiting for it"
    waiting = Event("waiting", text)
    with exclusive_with_children(folder / layout.LOCK, lambda: announce(waiting)) as lock:
        yield lock


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a comparison as Ctrl-C does, together with its runs."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
