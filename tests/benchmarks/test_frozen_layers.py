"""The comparison that the benchmark times, and the ratios that it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.plan.recipe import load_plan


def test_both_comparisons_grow_in_turns_and_their_costs_are_added(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark, timed = script("frozen_layers"), script("timed_commands")
    begun: list[tuple[Any, int]] = []

    def run_here(command: Sequence[str], threads: int) -> Any:
        if "--predict" in command:
            text = "peak memory of the largest run: about 0.75 GiB\n8 runs: about 1 min 03 s with 1"
            Path(command[-1]).write_text(text, encoding="utf-8")
            return None
        plan = load_plan(command[command.index("compare") + 1])
        setting = plan.runs[0].recipe.train.cache_frozen
        begun.append((setting, len(plan.runs)))
        for run in plan.runs:
            folder = run.folder(Path(command[-1]))
            folder.mkdir(parents=True, exist_ok=True)
            result = {"metrics": {"accuracy": 0.75}, "peak_memory_bytes": 2**30}
            (folder / "result.json").write_text(json.dumps(result))
        return timed.Cost(*((10.0, 30.0, 0) if setting else (20.0, 45.0, 0)))

    monkeypatch.setattr(benchmark, "run_command", run_here)
    benchmark.main(["--glue", "FOLDER", "--out", str(tmp_path), "--rows", "32"])
    assert begun == [(False, 16), (True, 16), (True, 32), (False, 32)]
    printed = capsys.readouterr().out
    assert (
        "| all blocks each time | 40.0 s | 1 min 30 s | 1.00 | 1.00 | 1024 | 0 | 75.0 |" in printed
    )
    assert "| frozen blocks once | 20.0 s | 1 min 00 s | 2.00 | 1.50 | 1024 | 0 | 75.0 |" in printed
    assert "| all blocks each time | 63 / 90 = 0.70 | 768 / 1024 = 0.75 |" in printed
