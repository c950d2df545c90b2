"""Carrying out a comparison: which run begins when, what is tried again, what failed."""

from __future__ import annotations

import fcntl
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from iwlora.compare.execute.local import Executor, Local
from iwlora.compare.execute.superseded_runs import make_room
from iwlora.compare.plan.learning_rate_search import Choice, choose, save, trial_of
from iwlora.compare.plan.recipe import Plan, PlannedRun, check_budgets, check_task
from iwlora.errors import IwloraError
from iwlora.inputs.paths import check_links, settled
from iwlora.results.writing import write_text
from iwlora.training.model.backbone import skeleton
from iwlora.training.overrides import read_yaml
from iwlora.training.state.run_folder import LOCK, RunDir

POLL_SECONDS = 0.5
FAILURES = "failures.jsonl"
SEARCH = "search.json"


class View(Protocol):
    """Shows how the runs stand while they are carried out."""

    def show(self, runs: dict[PlannedRun, str], folder: Path) -> None:
        """``runs``: "waiting", "running", "done", "failed", "diverged" or "not begun"."""

    def close(self) -> None:
        """Nothing more will be shown."""


class Grid:
    """The runs of a plan in a folder, and how each stands."""

    def __init__(
        self, plan: Plan, folder: Path, executor: Executor, announce: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._executor = executor
        self._announce = announce
        self._choices: dict[str, Choice] = {}
        self._tried: dict[PlannedRun, int] = {}
        self._peaks = [_first_guess(plan)]
        self.states = dict.fromkeys([*plan.trials, *plan.runs], "waiting")

    def open(self) -> None:
        """Make the folders; raises ``IwloraError`` for one that belongs to another recipe."""
        for run in self._plan.trials if self._plan.search else self._plan.runs:
            self._settle_if_done(run)
        write_text(self._folder / "comparison.yaml", self._plan.record())
        done = sum(state == "done" for state in self.states.values())
        if done:
            self._announce(f"{done} of {len(self.states)} runs are done already")

    def carry_out(self, view: View | None = None) -> list[PlannedRun]:
        """Carry out what is not done; returns the reported runs that have no result."""
        running: dict[Path, PlannedRun] = {}
        while True:
            while self._executor.room(max(self._peaks)) and (run := self._next()):
                place = run.folder(self._folder)
                self._executor.start(place, self._log(place))
                running[place] = run
            if view:
                view.show(self.states, self._folder)
            if not running:
                break
            for place, code in self._executor.ended(POLL_SECONDS):
                self._end(running.pop(place), code)
        return [run for run in self._plan.runs if self.states[run] in ("failed", "diverged")]

    def _next(self) -> PlannedRun | None:
        """The first run that may begin, marked as running; None when there is none now."""
        for planned, state in self.states.items():
            if state != "waiting":
                continue
            run = self._ready(planned)
            if run is None or self._settle_if_done(run, planned):
                continue
            self.states[planned] = "running"
            number = sum(state not in ("waiting", "not begun") for state in self.states.values())
            self._announce(f"[{number}/{len(self.states)}] {run}")
            return run
        return None

    def _ready(self, run: PlannedRun) -> PlannedRun | None:
        """The run as it is to be carried out, or None while, or for as long as, it cannot be."""
        search = self._plan.search
        if search is None:
            return run
        if run.trial:
            spent = sum(trial.seconds or 0.0 for trial in self._trials(run.label))
            if search.max_seconds is None or spent < search.max_seconds:
                return run
            self.states[run] = "not begun"
            return None
        choice = self._choices.get(run.label) or self._choose(run.label)
        if choice is None:
            return None
        if choice.lr is None:
            self.states[run] = "failed"
            return None
        chosen = run.at(choice.lr)
        if kept := make_room(chosen, self._folder):
            self._announce(f"{run}: its run at the learning rate chosen before is kept in {kept}")
        return chosen

    def _choose(self, label: str) -> Choice | None:
        """The learning rate of an arm once its trials are settled."""
        mine = [run for run in self._plan.trials if run.label == label]
        if any(self.states[run] in ("waiting", "running") for run in mine):
            return None
        results = [self._result(run) for run in mine]
        metric = next((found["primary_metric"] for found in results if found), None)
        choice = choose(label, self._trials(label), metric)
        self._choices[label] = choice
        save(self._folder / SEARCH, self._choices)
        if choice.lr is not None:
            self._announce(f"{label}: learning rate {choice.lr:g} of {len(mine)} trials")
        if choice.remark:
            self._announce(choice.remark)
        return choice

    def _trials(self, label: str) -> list[Any]:
        return [
            trial_of(run.recipe.train.lr, run.seed, self._result(run), self.states[run])
            for run in self._plan.trials
            if run.label == label
        ]

    def _result(self, run: PlannedRun) -> dict[str, Any] | None:
        return RunDir(run.folder(self._folder)).result()

    def _settle_if_done(self, run: PlannedRun, planned: PlannedRun | None = None) -> bool:
        """Whether nothing is left to do: the run is done, or has diverged and would again."""
        place = RunDir.open(run.folder(self._folder), run.recipe)
        result = place.result()
        if result is None and place.diverged():
            self.states[planned or run] = "diverged"
            return True
        if result is None:
            return False
        self._peaks.append(result["peak_memory_bytes"] or 0)
        self.states[planned or run] = "done"
        return True

    def _end(self, run: PlannedRun, code: int) -> None:
        planned = self._planned(run)
        if self._settle_if_done(run, planned):
            if self.states[planned] == "diverged":
                self._announce(f"{run} diverged: {self._error(run.folder(self._folder), code)}")
            return
        self._tried[planned] = self._tried.get(planned, 0) + 1
        again = self._tried[planned] == 1
        self.states[planned] = "waiting" if again else "failed"
        error = self._error(run.folder(self._folder), code)
        record = {
            "run": str(run),
            "label": run.label,
            "seed": run.seed,
            "trial": run.trial,
            "exit": code,
            "error": error,
            "tried_again": again,
        }
        with (self._folder / FAILURES).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        what = "it is tried once more" if again else "it is not counted"
        self._announce(f"{run} failed (exit {code}): {error}; {what}")

    def _planned(self, run: PlannedRun) -> PlannedRun:
        """The run as it stands in the plan, before a search gave it a learning rate."""
        if run in self.states:
            return run
        return next(
            one for one in self._plan.runs if (one.label, one.seed) == (run.label, run.seed)
        )

    def _log(self, place: Path) -> Path:
        return self._folder / "logs" / place.relative_to(self._folder).with_suffix(".txt")

    def _error(self, place: Path, code: int) -> str:
        """What the run said last, in a line."""
        log = self._log(place)
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        )
        told = [line for line in lines if line.strip()]
        killed = f"killed by signal {-code}" if code < 0 else "it said nothing"
        return told[-1].rpartition("error: ")[2][:300] if told else killed


def compare(
    plan: Plan,
    out: str | Path,
    executor: Callable[[IO[str]], Executor] | None = None,
    announce: Callable[[str], None] = print,
    view: View | None = None,
) -> list[PlannedRun]:
    """Carry out what is not done yet; returns the reported runs that failed twice or diverged.

    ``executor`` makes the executor around an open lock file; one process after the other where
    none is given. Raises ``IwloraError``, before any run, for unequal budgets, for data that
    cannot be read, and when a folder belongs to another recipe.
    """
    check_budgets(plan)
    check_task(plan)
    folder = settled(out)
    check_place(plan, folder)
    with locked(folder, announce) as lock:
        workers = executor(lock) if executor else Local(1, lock)
        grid = Grid(plan, folder, workers, announce)
        try:
            with _ended_as_interrupted():
                grid.open()
                return grid.carry_out(view)
        finally:
            workers.stop()
            if view:
                view.close()


def check_place(plan: Plan, folder: Path) -> None:
    """Raise ``IwloraError`` for a folder that holds something other than a part of the plan.

    A comparison may grow by arms and seeds; one that had others would be lost with its report.
    """
    check_links(folder)
    if (folder / "comparison.yaml").is_file():
        before = read_yaml(folder / "comparison.yaml")
        for part, now in (("methods", plan.labels), ("seeds", plan.seeds)):
            there = before.get(part)
            gone = [one for one in there if one not in now] if isinstance(there, list) else [there]
            if gone:
                raise IwloraError(
                    f"{folder} holds a comparison with the {part} {', '.join(map(str, gone))}, "
                    "which this one lacks; choose another folder"
                )
    elif folder.is_dir():
        own = {LOCK, "logs", *plan.labels}
        other = sorted(file.name for file in folder.iterdir() if file.name not in own)
        if other:
            raise IwloraError(f"{folder} holds {other[0]} and no comparison; choose another folder")


@contextmanager
def locked(folder: Path, announce: Callable[[str], None]) -> Iterator[IO[str]]:
    """The folder for this process alone, and for the runs that it starts.

    A run outlives a comparison that was killed. The runs keep the lock open, so that the next
    start waits for them instead of writing beside them.
    """
    if folder.exists() and not folder.is_dir():
        raise IwloraError(f"{folder} is a file; give a folder for the comparison")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_links(folder)
        stream = (folder / LOCK).open("a", encoding="ascii")
    except OSError as error:
        raise IwloraError(f"cannot write into {folder}: {error.strerror}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce(f"{folder} is in use by another comparison or its last run; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a comparison as Ctrl-C does, with its runs."""
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


def _first_guess(plan: Plan) -> int:
    """Bytes that a run takes, before one has told: weights, gradients, Adam's two, activations."""
    recipe = plan.runs[0].recipe
    model = skeleton(recipe.model, trust_remote_code=recipe.trust_remote_code)
    return 2**30 + 20 * sum(parameter.numel() for parameter in model.parameters())
