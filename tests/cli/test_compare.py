"""``iwlora compare``: recipes, or results that exist; tests/compare has what is planned and run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from commands import call, execute_in_process, write_recipe

pytestmark = pytest.mark.quick


@pytest.fixture
def comparison(settings: dict[str, Any], tmp_path: Path) -> Path:
    task = {**settings["task"], "max_train": 32}
    methods = [{"name": "lora", "rank": 2}, {"name": "bitfit"}]
    plan = {"model": settings["model"], "task": task, "methods": methods}
    return write_recipe(
        tmp_path / "comparison.yaml", {**plan, "seeds": [0], "train": settings["train"]}
    )


def test_a_recipe(
    comparison: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started = execute_in_process(monkeypatch)
    out = tmp_path / "compared"
    outcome = call(capsys, "compare", comparison, "seeds=[3]", "--out", out, "--baseline", "bitfit")
    assert outcome.code == 0, outcome.err
    assert len(started) == 2
    assert outcome.out.endswith(f"\nreport: {out / 'report.html'}\n")
    for label in ("lora", "bitfit"):
        result = json.loads((out / label / "seed-3" / "result.json").read_text())
        assert result["label"] == label
        assert label in outcome.out
    for name in ("report.html", "summary.json", "summary.md"):
        assert (out / name).stat().st_size > 0


def test_events_as_json_and_then_an_interrupt(
    comparison: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    execute_in_process(monkeypatch)
    out = tmp_path / "compared"
    command = ["compare", str(comparison), "--out", str(out), "--log-format", "json"]
    outcome = call(capsys, *command)
    assert outcome.code == 0, outcome.err
    events = [json.loads(line) for line in outcome.out.splitlines()]
    runs = ["run started", "run finished"]
    assert [event["event"] for event in events] == [*runs, *runs, "floors", "finished"]
    first = json.loads((out / "lora" / "seed-0" / "result.json").read_text())
    assert events[1]["metrics"] == first["metrics"]
    assert (events[1]["label"], events[1]["seed"], events[1]["trial"]) == ("lora", 0, False)
    assert events[1]["seconds_left"] > 0
    assert events[-1]["report"] == str(out / "report.html")
    assert Path(events[-1]["report"]).is_file()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iwlora.compare.execute.local.LocalExecutor.start", interrupted)
    again = call(capsys, *command, "seeds=[0,1]")
    assert again.code == 130
    assert again.err.startswith("interrupted: 2 of 4 runs are done\n")
    assert again.err.splitlines()[-1] == f"to go on: iwlora {shlex.join(command)} 'seeds=[0,1]'"


def test_a_dry_run_starts_nothing(
    comparison: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started = execute_in_process(monkeypatch)
    outcome = call(capsys, "compare", comparison, "--out", tmp_path / "compared", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "bitfit" in outcome.out
    assert not started
    assert not (tmp_path / "compared").exists()


def test_scores_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"{method},rte,{seed},{score + seed / 100}"
        for seed in range(6)
        for method, score in (("lora", 0.6), ("other", 0.7))
    ]
    table = tmp_path / "scores.csv"
    table.write_text("\n".join(["method,task,seed,score", *rows]) + "\n")
    outcome = call(capsys, "compare", table, "--out", tmp_path / "compared")
    assert outcome.code == 0, outcome.err
    assert "0.6250" in outcome.out
    assert "0.7250" in outcome.out
    wrong = call(capsys, "compare", table, "train.lr=1", "--out", tmp_path / "compared")
    assert wrong.code == 2
    assert "train.lr=1" in wrong.err


def test_recipes_and_results_do_not_mix(
    comparison: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = call(capsys, "compare", comparison, finished, "--out", tmp_path / "compared")
    assert outcome.code == 2
    assert "not both" in outcome.err
