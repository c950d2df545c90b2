"""A comparison that is killed ends where one that is left alone ends."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

import pytest

import compare_kills
from commands import TRAIN, call, execute_in_process, run_settings, write_recipe
from warm_processes import started_comparison


@pytest.mark.slow
def test_a_killed_comparison_that_left_its_run_behind_goes_on(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = [{"name": name, "rank": 4} for name in ("lora", "iw-lora")]
    train = {**TRAIN, "save_steps": 2}
    settings = run_settings(tiny_bert, reviews, methods=methods, seeds=[0], train=train)
    del settings["method"]
    recipe = write_recipe(tmp_path / "plan.yaml", settings)
    out = tmp_path / "killed"
    checkpoint = out / "lora" / "seed-0" / "checkpoints" / "checkpoint-2"
    with started_comparison(tmp_path / "log.txt", recipe, "--out", out) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was killed while it ran"
        assert checkpoint.exists()

        started = execute_in_process(monkeypatch)
        assert call(capsys, "compare", recipe, "--out", out).code == 0
    assert [Path(arguments[-1]).parent.name for arguments in started][-1:] == ["iw-lora"]
    assert call(capsys, "compare", recipe, "--out", tmp_path / "alone").code == 0
    assert compare_kills.read_summary(out) == compare_kills.read_summary(tmp_path / "alone")


def write_summary(comparison: Path, score: float, seconds: float = 1.0) -> None:
    comparison.mkdir(parents=True)
    arm = {"label": "lora", "metrics": {"f1": score}, "train_seconds": {"0": seconds}}
    (comparison / "summary.json").write_text(json.dumps({"arms": [arm]}))


@pytest.mark.quick
def test_summaries_that_differ_in_more_than_time_are_noticed(tmp_path: Path) -> None:
    for name, score, seconds in (("a", 0.5, 1.0), ("b", 0.5, 2.0), ("c", 0.6, 1.0)):
        write_summary(tmp_path / name, score, seconds)
    a, b, c = (compare_kills.read_summary(tmp_path / name) for name in "abc")
    assert compare_kills.largest_difference(a, b) == 0
    assert compare_kills.largest_difference(a, c) == pytest.approx(0.1)
    assert compare_kills.largest_difference(a, {**a, "arms": []}) == math.inf
    assert compare_kills.largest_difference({"p": None}, {"p": 0.5}) == math.inf


@pytest.mark.quick
@pytest.mark.parametrize("changed", ["found.yaml", "stages/confirm/summary.json"])
def test_a_search_whose_other_results_differ_is_noticed(changed: str, tmp_path: Path) -> None:
    for name in "ab":
        write_summary(tmp_path / name / "stages" / "confirm", score=0.5)
        found = {"confirmation": "stages/confirm", "stages": [{"runs": [{"seconds": name}]}]}
        (tmp_path / name / "summary.json").write_text(json.dumps(found))
        (tmp_path / name / "found.yaml").write_text("method: {groups: spindle}")

    def difference() -> float:
        a, b = (compare_kills.read_summary(tmp_path / name) for name in "ab")
        return compare_kills.largest_difference(a, b)

    assert difference() == 0
    file = tmp_path / "b" / changed
    file.write_text(file.read_text().replace("lora", "dora").replace("spindle", "uniform"))
    assert difference() == math.inf


@pytest.mark.quick
@pytest.mark.parametrize(("score", "code"), [(0.5, 0), (0.6, 1)])
def test_the_command_fails_if_a_summary_differs(
    score: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class EndedProcess:
        def wait(self) -> int:
            return 0

    executors = []

    def start(command: list[str], out: Path) -> EndedProcess:
        executors.append(command[command.index("--executor") + 1])
        write_summary(out, 0.5 if out.name == "alone" else score)
        return EndedProcess()

    monkeypatch.setattr(compare_kills, "start", start)
    arguments = ["plan.yaml", "--kills", "0", "--executor", "ray"]
    monkeypatch.setattr(sys, "argv", ["compare_kills.py", *arguments])
    assert compare_kills.main() == code
    assert executors == ["local", "ray"], "the reference is that of processes on this machine"
    assert ("DIFFER" in capsys.readouterr().out) == bool(code)
