"""The progress of a whole comparison, on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import get_args

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.table import Table

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.inputs.control_characters import VisibleStream, unfiltered, visible
from iwlora.inputs.lines import last_line
from iwlora.inputs.yaml_json import from_json
from iwlora.results import layout
from iwlora.results.comparison.record import LOST, State
from iwlora.results.durations import format_duration, seconds_left
from iwlora.results.run import RunResult, load_run
from iwlora.training.loop.progress import score_text, trivial_floor

_MARKS = dict(zip(get_args(State), "·▶✓✗∞–", strict=True))


class TerminalProgress:
    """A row for each arm with a mark for each run, how far the running ones are, the time left."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self._plan = plan
        self._start_time = time.monotonic()
        self._done_at_start: int | None = None
        self._results: dict[PlannedRun, RunResult] = {}
        self._live = Live(
            console=console or Console(file=unfiltered(sys.stderr)), auto_refresh=False
        )
        self._live.start()
        if isinstance(sys.stderr, FileProxy):  # which obeys control characters
            sys.stdout, sys.stderr = VisibleStream(sys.stdout), VisibleStream(sys.stderr)

    def announce(self, text: str) -> None:
        """Print a line above the table."""
        self._live.console.print(visible(text), markup=False, highlight=False)

    def show(self, states: Mapping[PlannedRun, State], folder: Path) -> None:
        """Draw the table anew.

        Args:
            states: ``Scheduler.states``.
            folder: The folder of the comparison.
        """
        self._live.update(self.table(states, folder), refresh=True)

    def close(self) -> None:
        """Leave the last table on the terminal."""
        self._live.stop()

    def table(self, states: Mapping[PlannedRun, State], folder: Path) -> Table:
        """The table that :meth:`show` draws."""
        begun = ("done", *LOST)
        ended = begun if self._plan.may_end_early else (*begun, "not begun")
        done = sum(state in ended for state in states.values())
        if self._done_at_start is None:
            self._done_at_start = done
        search = ["search"] if self._plan.trials else []
        caption = self._caption(done, len(states))
        heads = ["arm", *search, "runs", "score so far", "running"]
        table = Table(*heads, box=None, pad_edge=False, caption=caption)
        for label in self._plan.labels:
            arm = {run: state for run, state in states.items() if run.label == label}
            trials = "".join(_MARKS[state] for run, state in arm.items() if run.trial)
            reported = "".join(_MARKS[state] for run, state in arm.items() if not run.trial)
            running = ", ".join(
                f"seed {run.seed} {100 * fraction:.0f}%"
                for run, state in arm.items()
                if state == "running" and (fraction := trained_fraction(run, folder)) is not None
            )
            scored = [run for run, state in arm.items() if state == "done" and not run.trial]
            score = self._score(scored, folder)
            table.add_row(label, *([trials] if search else []), reported, score, running)
        return table

    def _score(self, runs: list[PlannedRun], folder: Path) -> str:
        """The mean score of the runs that have ended, beside the trivial floor of the last one."""
        for run in runs:
            path = run.folder(folder)
            if run not in self._results and (path / layout.RESULT).is_file():
                self._results[run] = load_run(path).result
        results = [self._results[run] for run in runs if run in self._results]
        scores = [result.score for result in results if result.score is not None]
        if not scores:
            return ""
        metric = results[-1].primary_metric
        return score_text({metric: fmean(scores)}, metric, trivial_floor(results[-1]))

    def _caption(self, done: int, total: int) -> str:
        if self._plan.may_end_early:  # how many draws or trials are needed is not known
            return f"{done} runs, at most {total}"
        newly_done = done - (self._done_at_start or 0)
        caption = f"{done} of {total} runs"
        elapsed = time.monotonic() - self._start_time
        seconds = seconds_left(newly_done, newly_done + total - done, elapsed)
        if not seconds:
            return caption
        return f"{caption}, about {format_duration(seconds)} left"


def trained_fraction(run: PlannedRun, folder: Path) -> float | None:
    """The part of its training that a run has done, by the last line of its log; None without one.

    Args:
        run: The run.
        folder: The folder of the comparison.
    """
    try:
        record = from_json(last_line(run.folder(folder) / layout.METRICS))
        train = run.recipe.train
        if train.max_steps is not None:
            return min(1.0, float(record["step"]) / train.max_steps)
        return min(1.0, float(record["epoch"]) / train.epochs)
    except (ValueError, KeyError, TypeError):  # no log yet, or half a line
        return None
