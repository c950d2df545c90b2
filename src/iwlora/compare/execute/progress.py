"""How a whole comparison stands, on the terminal while it is carried out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from iwlora.compare.number_format import format_duration
from iwlora.compare.plan.recipe import Plan, PlannedRun
from iwlora.inputs.yaml_json import from_json

_MARKS = {
    "waiting": "·",
    "running": "▶",
    "done": "✓",
    "failed": "✗",
    "diverged": "∞",
    "not begun": "–",
}


class Progress:
    """A row for each arm, a mark for each run, how far those at work are, and the time left."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self._plan = plan
        self._started = time.monotonic()
        self._already: int | None = None
        self._live = Live(console=console or Console(stderr=True), auto_refresh=False)
        self._live.start()

    def announce(self, text: str) -> None:
        """A line above the table."""
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, runs: Mapping[PlannedRun, str], folder: Path) -> None:
        """Draw how the runs stand now."""
        self._live.update(self.table(runs, folder), refresh=True)

    def close(self) -> None:
        """Leave the last state on the terminal."""
        self._live.stop()

    def table(self, runs: Mapping[PlannedRun, str], folder: Path) -> Table:
        """The table that :meth:`show` draws."""
        done = sum(state in ("done", "failed", "diverged", "not begun") for state in runs.values())
        if self._already is None:
            self._already = done
        shown = Table(box=None, pad_edge=False, caption=self._left(done, len(runs)))
        shown.add_column("arm")
        if self._plan.trials:
            shown.add_column("search")
        shown.add_column("runs")
        shown.add_column("at work")
        for label in self._plan.labels:
            mine = {run: state for run, state in runs.items() if run.label == label}
            trials = "".join(_MARKS[state] for run, state in mine.items() if run.trial)
            final = "".join(_MARKS[state] for run, state in mine.items() if not run.trial)
            now = ", ".join(
                f"seed {run.seed} {100 * part:.0f}%"
                for run, state in mine.items()
                if state == "running" and (part := fraction(run, folder)) is not None
            )
            shown.add_row(label, *([trials] if self._plan.trials else []), final, now)
        return shown

    def _left(self, done: int, runs: int) -> str:
        new = done - (self._already or 0)
        told = f"{done} of {runs} runs"
        if not new or done == runs:
            return told
        each = (time.monotonic() - self._started) / new
        return f"{told}, about {format_duration(each * (runs - done))} left"


def fraction(run: PlannedRun, folder: Path) -> float | None:
    """How much of its training a run has done, by the last line that it logged; None if none."""
    try:
        with (run.folder(folder) / "metrics.jsonl").open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 2000))
            last = stream.read().splitlines()[-1]
        return min(1.0, float(from_json(last)["epoch"]) / run.recipe.train.epochs)
    except (OSError, IndexError, ValueError, KeyError, TypeError):  # not begun, or half a line
        return None
