"""What a comparison says before and while it is carried out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from commands import call, run_settings, write_recipe
from iwlora.compare.execute.progress import TerminalProgress, trained_fraction
from iwlora.compare.plan.recipe import load_plan
from iwlora.compare.report.text_formats import _tex


@pytest.fixture
def plan_file(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> Path:
    methods: list[Any] = ["full", {"name": "lora", "rank": 4}]
    settings = run_settings(tiny_bert, reviews, methods=methods, seeds=[0, 1])
    del settings["method"]
    settings["search"] = {"lr": [1e-4, 1e-3, 1e-2]}
    return write_recipe(tmp_path / "plan.yaml", settings)


def test_a_dry_run_tells_runs_budgets_and_time_and_leaves_nothing(
    plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = call(capsys, "compare", plan_file, "--dry-run", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "lora: 2 runs + 3 trials, 1,664 adapter parameters" in outcome.out
    assert "s a step, about" in outcome.out
    assert "10 runs on" in outcome.out
    assert not (tmp_path / "out").exists()


def test_the_grid_shows_every_run(plan_file: Path, tmp_path: Path) -> None:
    plan = load_plan(str(plan_file))
    text = io.StringIO()
    view = TerminalProgress(plan, Console(file=text, width=90))
    states = dict.fromkeys([*plan.trials, *plan.runs], "done")
    states[plan.runs[0]] = "running"
    states[plan.runs[1]] = "failed"
    log = plan.runs[0].folder(tmp_path) / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"epoch": 0.5, "loss": 1.0}) + "\n")
    assert trained_fraction(plan.runs[0], tmp_path) == 0.5
    assert trained_fraction(plan.runs[1], tmp_path) is None
    Console(file=text, width=90).print(view.table(states, tmp_path))
    view.close()
    shown = text.getvalue()
    assert "▶✓" in shown
    assert "✗✓" in shown
    assert "seed 0 50%" in shown
    assert "9 of 10 runs" in shown


def test_names_mean_themselves_in_latex() -> None:
    assert _tex("a_b & 5% {x} \\input ~^$#") == (
        r"a\_b \& 5\% \{x\} \textbackslash{}input \textasciitilde{}\textasciicircum{}\$\#"
    )
