"""Decides which run of a comparison starts when, which is retried, and which has failed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from iwlora.compare.execute.executor import Executor
from iwlora.compare.execute.progress import TerminalProgress
from iwlora.compare.execute.scheduling.input_check import InputCheck
from iwlora.compare.execute.scheduling.racing import Racing
from iwlora.compare.execute.scheduling.searching import Searching
from iwlora.compare.execute.scheduling.stopping import Stopping
from iwlora.compare.execute.scheduling.superseded_runs import swap_superseded_run
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import SearchSteps
from iwlora.compare.plan.search.learning_rate import describe_choice
from iwlora.inputs.lines import last_line
from iwlora.results import layout
from iwlora.results.comparison.record import LOST, Crash, LearningRateChoice, State
from iwlora.results.durations import format_duration, seconds_left
from iwlora.results.events import Event, Report
from iwlora.results.run import Run, RunResult, state_of
from iwlora.training.loop.progress import score_text, trivial_floor
from iwlora.training.model.backbone import meta_model
from iwlora.training.state.run_folder import RunDir

POLL_SECONDS = 0.5


class Scheduler:
    """Executes the runs of a plan in a folder, and knows the state of each.

    Args:
        plan: The comparison.
        folder: Its folder.
        executor: What executes the runs.
        announce: Gets one line for each event.
        steps: What the trials of its search may take; None: there is no search.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        executor: Executor,
        announce: Report,
        steps: SearchSteps | None = None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._executor = executor
        self._announce = announce
        self._searching = Searching(plan, steps, folder) if steps else None
        self._announced: set[str] = set()
        self._retried: set[PlannedRun] = set()
        self._running: dict[Path, tuple[PlannedRun, PlannedRun]] = {}  # as planned, as started
        self._inputs = InputCheck()
        self._stopping: Stopping | Racing | None = None
        if plan.stop:
            self._stopping = Stopping(plan.stop, plan.labels, plan.baseline, plan.seeds)
        elif plan.race:
            self._stopping = Racing(plan.race, plan.labels, plan.seeds)
        self._peak_bytes = [_guess_peak_bytes(plan)]
        self._begun, self._ended = time.monotonic(), 0
        self.states: dict[PlannedRun, State] = dict.fromkeys([*plan.trials, *plan.runs], "waiting")
        """How each planned run stands."""

    def prepare(self) -> None:
        """Create the folders of the runs, and find those that are done.

        Raises:
            IwloraError: A folder belongs to another recipe.
        """
        for run in self._plan.trials if self._plan.search else self._plan.runs:
            # A draw that no verdict needs, or a trial, may never begin, and has no folder.
            certain = not self._plan.ends_by_scores and not run.trial
            if certain or run.folder(self._folder).exists():
                self._update_state(run, run)
        self._plan.record().save(self._folder / layout.COMPARISON)
        if done := sum(state == "done" for state in self.states.values()):
            text = f"{done} of {len(self.states)} runs are done already"
            self._announce(Event("resumed", text, done=done, runs=len(self.states)))

    def execute(self, view: TerminalProgress | None = None) -> list[PlannedRun]:
        """Execute what is not done; returns the reported runs that have no result."""
        while True:
            while self._executor.has_capacity(max(self._peak_bytes)) and self._start_next():
                pass
            if view:
                view.show(self.states, self._folder)
            if not self._running:
                break
            for folder, code in self._executor.wait(POLL_SECONDS):
                self._handle_exit(*self._running.pop(folder), code)
        return [run for run in self._plan.runs if self.states[run] in LOST]

    def _start_next(self) -> bool:
        """Start the first waiting run that can start now; False if there is none.

        A run that turns out to be done already may be what others wait for, so that all are looked
        at again.
        """
        while True:
            before = dict(self.states)
            if self._start_one():
                return True
            if self.states == before:
                return False

    def _start_one(self) -> bool:
        for planned, state in [*self.states.items()]:
            if state != "waiting":
                continue
            run = self._startable(planned)
            if run is None or self._update_state(planned, run):
                continue
            self.states[planned] = "running"
            number = sum(state not in ("waiting", "not begun") for state in self.states.values())
            most = ", at most " if self._plan.may_end_early else "/"
            text = f"[{number}{most}{len(self.states)}] {run}"
            self._announce(Event("run started", text, number=number, **_named(run)))
            folder = run.folder(self._folder)
            log = layout.log_file(self._folder, folder)
            log.parent.mkdir(parents=True, exist_ok=True)
            self._executor.start(folder, log)
            self._running[folder] = planned, run
            return True
        return False

    def _startable(self, planned: PlannedRun) -> PlannedRun | None:
        """The run with the learning rate that it gets; None if it cannot start now, or ever."""
        if self._stopping and not planned.trial:
            if not self._stopping.needs(planned.label, planned.seed):
                self.states[planned] = "not begun"
                return None
            if not self._stopping.may_begin(planned.seed):
                return None
        if self._searching is None:
            return planned
        if planned.trial:
            may_begin = self._searching.may_begin(planned)
            if may_begin is False:
                self.states[planned] = "not begun"
                if self._searching.is_asked_for(planned):
                    self._note_end(planned, None)
            return planned if may_begin else None
        choice = self._searching.choice(planned.label)
        if choice is None:
            return None
        self._announce_choice(planned.label, choice)
        if choice.lr is None:
            self.states[planned] = "failed"
            self._note_end(planned, None)
            return None
        run = self._searching.chosen_run(planned, choice)
        options = self._plan.search.options if self._plan.search else {}
        if kept := swap_superseded_run(run, self._folder, options):
            text = f"{run}: the run with the former choice of its search is kept in {kept}"
            self._announce(Event("kept", text, path=str(kept), **_named(run)))
        return run

    def _announce_choice(self, label: str, choice: LearningRateChoice) -> None:
        """Say once which learning rate the search of an arm chose."""
        if label in self._announced:
            return
        self._announced.add(label)
        if choice.lr is not None:
            text = f"{label}: {describe_choice(choice)}"
            self._announce(Event("learning rate", text, label=label, lr=choice.lr))
        if choice.remark:
            self._announce(Event("remark", choice.remark, label=label))

    def _result(self, run: PlannedRun) -> RunResult | None:
        return RunDir(run.folder(self._folder)).result()

    def _update_state(self, planned: PlannedRun, run: PlannedRun) -> bool:
        """Whether the run is done, or has diverged and would diverge again."""
        folder = RunDir.open(run.folder(self._folder), run.recipe)
        if (result := folder.result()) is not None:
            self._inputs.check(run, folder.path, result)
            self._peak_bytes.append(result.own_peak_memory_bytes or 0)
            self.states[planned] = "done"
        elif state_of(folder.path) == "diverged":
            self.states[planned] = "diverged"
        ended = self.states[planned] in ("done", "diverged")
        if ended:
            self._note_end(planned, result)
        return ended

    def _note_end(self, planned: PlannedRun, result: RunResult | None) -> None:
        """Tell the search that a trial has ended, or what ends the draws that one has."""
        if self._searching and planned.trial:
            new, lines = self._searching.ended(planned, result, self.states[planned])
            self.states.update(dict.fromkeys(new, "waiting"))
            for line in lines:
                self._announce(Event("grid widened", line, label=planned.label))
        if self._stopping and not planned.trial:
            run = Run(planned.folder(self._folder), result) if result else None
            for line in self._stopping.ended(planned.label, planned.seed, run):
                self._announce(Event("verdict", line, label=planned.label))

    def _handle_exit(self, planned: PlannedRun, run: PlannedRun, code: int) -> None:
        if self._update_state(planned, run):
            if self.states[planned] == "diverged":
                error = self._error(run, code)
                text = f"{run} diverged: {error}"
                self._announce(Event("run diverged", text, error=error, **_named(run)))
            else:
                self._announce(self._finished(run))
            return
        retry = planned not in self._retried
        self._retried.add(planned)
        self.states[planned] = "waiting" if retry else "failed"
        if not retry:
            self._note_end(planned, None)
        error = self._error(run, code)
        Crash(
            run=str(run),
            label=run.label,
            seed=run.seed,
            trial=run.trial,
            exit=code,
            error=error,
            tried_again=retry,
        ).append(self._folder / layout.FAILURES)
        consequence = "it is tried once more" if retry else "it is not counted"
        text = f"{run} failed (exit {code}): {error}; {consequence}"
        failure = {"exit": code, "error": error, "tried_again": retry}
        self._announce(Event("run failed", text, **failure, **_named(run)))

    def _finished(self, run: PlannedRun) -> Event:
        """The score of a run that has just ended, beside its floor, and how long the rest takes."""
        result = self._result(run)
        assert result is not None
        metric, floor = result.primary_metric, trivial_floor(result)
        self._ended += 1
        waiting = sum(state in ("waiting", "running") for state in self.states.values())
        elapsed = time.monotonic() - self._begun
        left = seconds_left(self._ended, self._ended + waiting, elapsed)
        rest = f"; about {format_duration(left)} left" if left else ""
        return Event(
            "run finished",
            f"{run}: {score_text(result.metrics, metric, floor)}{rest}",
            metrics=result.metrics,
            primary_metric=metric,
            floor=floor and vars(floor),
            train_seconds=result.train_seconds,
            seconds_left=left,
            **_named(run),
        )

    def kept(self) -> str:
        """A sentence on what a comparison that has to stop does not lose."""
        done = sum(state == "done" for state in self.states.values())
        stopped = [RunDir(folder) for folder in self._running]
        running = [run.kept() for run in stopped if run.result() is None]
        done += len(stopped) - len(running)
        return "; ".join([f"{done} of {len(self.states)} runs are done", *running])

    def _error(self, run: PlannedRun, code: int) -> str:
        """The last line that the run printed."""
        log = layout.log_file(self._folder, run.folder(self._folder))
        last = last_line(log) if log.exists() else ""
        if not last or code == -signal.SIGTERM:  # whose last line says how to go on alone
            return f"killed by signal {-code}" if code < 0 else "it printed nothing"
        return last.rpartition("error: ")[2][:300]


def _named(run: PlannedRun) -> dict[str, Any]:
    """What every event of a run says."""
    lr = run.recipe.train.lr
    return {"run": str(run), "label": run.label, "seed": run.seed, "trial": run.trial, "lr": lr}


def _guess_peak_bytes(plan: Plan) -> int:
    """Memory of a run before one was measured: weights, gradients, Adam's two, activations."""
    recipe = plan.runs[0].recipe
    model = meta_model(recipe)
    return 2**30 + 20 * model.num_parameters()
