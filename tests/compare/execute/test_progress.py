"""The progress of a comparison on the terminal."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from iwlora.compare.execute.progress import TerminalProgress, trained_fraction
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.results.comparison.record import State
from simulated_runs import result_of

pytestmark = pytest.mark.quick


def test_the_table_shows_the_state_of_every_run(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = make_plan(search={"lr": [1e-4, 1e-3, 1e-2], "seeds": [2]})
    text = io.StringIO()
    view = TerminalProgress(plan, Console(file=text, width=140))
    states = dict.fromkeys([*plan.trials, *plan.runs], "done")
    states[plan.runs[0]] = "running"
    states[plan.runs[1]] = "failed"
    log = plan.runs[0].folder(tmp_path) / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"epoch": 0.5, "loss": 1.0}) + "\n")
    ended = plan.runs[2]
    floor = {
        "name": "most frequent class",
        "trivial": True,
        "rows": 9,
        "metrics": {"accuracy": 0.5},
    }
    result = {**result_of(ended.recipe, 0.75), "floors": [floor]}
    ended.folder(tmp_path).mkdir(parents=True)
    (ended.folder(tmp_path) / "result.json").write_text(json.dumps(result))
    assert trained_fraction(plan.runs[0], tmp_path) == 0.5
    assert trained_fraction(plan.runs[1], tmp_path) is None
    view.show(states, tmp_path)
    view.close()
    shown = text.getvalue()
    assert "▶✓" in shown
    assert "✗✓" in shown
    assert "seed 0 50%" in shown
    assert "9 runs, at most 10" in shown, "the search may end before its last trial"
    assert "accuracy 0.7500 (most frequent class 0.5000)" in shown


def test_the_number_of_draws_is_not_known_before_the_verdict(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = make_plan(seeds=None, stop={"difference": 1.0, "max_seeds": 6})
    states: dict[PlannedRun, State] = dict.fromkeys(plan.runs, "waiting")
    states |= {plan.runs[0]: "done", plan.runs[1]: "failed", plan.runs[-1]: "not begun"}
    view = TerminalProgress(plan, Console(file=io.StringIO()))
    table = view.table(states, tmp_path)
    view.close()
    assert table.caption == "2 runs, at most 12"


def test_what_is_printed_above_the_table_is_not_obeyed(make_plan: Callable[..., Plan]) -> None:
    text = io.StringIO()
    before = sys.stdout, sys.stderr
    view = TerminalProgress(make_plan(), Console(file=text, width=90, force_terminal=True))
    print("from \x1b[31ma run\x07", file=sys.stderr)
    view.announce("to \x1b[31mall\u202e")
    view.close()
    assert (sys.stdout, sys.stderr) == before
    assert "from \\u001b[31ma run\\u0007" in text.getvalue()
    assert "to \\u001b[31mall\\u202e" in text.getvalue()
