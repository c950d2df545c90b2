"""The arithmetic of the benchmark of packs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest


def test_the_time_runs_from_the_last_run_that_joins_to_the_last_that_leaves(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = script("packed")
    now = 0.0
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    monkeypatch.setattr(benchmark.time, "process_time", lambda: 2 * now)
    watch = benchmark.Stopwatch(2, lambda trainer, interrupts: nullcontext())
    first, second = watch.joined(None, None), watch.joined(None, None)
    first.__enter__()
    now = 5.0
    second.__enter__()
    now = 7.0
    second.__exit__(None, None, None)
    now = 8.0
    first.__exit__(None, None, None)
    assert (watch.seconds, watch.processor_seconds) == (3.0, 6.0)


def test_a_row_has_the_ratios_of_its_two_cells(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = script("packed")
    found = {
        "alone": {"seconds": 30.0, "processor": 20.0, "peak": 2 * 2**20},
        "packed": {"seconds": 10.0, "processor": 16.0, "peak": 5 * 2**20},
    }

    def run(command: Sequence[str], threads: int, limit: float | None) -> None:
        cell = json.loads(command[command.index("--cell") + 1])
        out = Path(command[command.index("--out") + 1])
        out.write_text(json.dumps(found[cell["way"]]), encoding="utf-8")

    monkeypatch.setattr(benchmark, "run_command", run)
    row = benchmark.row(benchmark.Cell("packed", 4, batch=8))
    assert row == ["minilm", "4", "8", "30.0", "10.0", "3.00", "1.25", "2", "5"]


@pytest.mark.slow
def test_the_command_for_a_gpu_writes_its_table_after_each_row_and_goes_on_after_a_failure(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiny models in this process; the first cell fails in place of that with 64 runs."""
    benchmark, written, ways = script("packed"), tmp_path / "packed.md", []

    def run(command: Sequence[str], threads: int, limit: float | None) -> None:
        ways.append(json.loads(command[command.index("--cell") + 1])["way"])
        if len(ways) == 1:
            raise RuntimeError("planted")
        assert written.exists()
        assert written.read_text().count("\n| ") == 1 + (len(ways) > 1) + (len(ways) > 3)
        benchmark.main(command[1:])

    monkeypatch.setattr(benchmark, "run_command", run)
    benchmark.main(["--gpu", "--tiny", "--out", str(written)])
    assert ways == ["alone", "plain", "packed", "alone", "packed"]
    rows = [line.strip("| ").split(" | ") for line in written.read_text().splitlines()[-3:]]
    assert rows[0][:4] == ["minilm", "2", "4", "alone: failed"]
    assert rows[1][:3] == ["minilm (plain Trainer + PEFT)", "1", "4"]
    assert rows[2][:3] == ["llama", "2", "4"]
    assert all(float(cell) >= 0 for row in rows[1:] for cell in row[3:7])
    assert "planted" in capsys.readouterr().err


def test_what_is_not_reached_in_time_is_not_measured(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, timed, limits = script("packed"), script("timed_commands"), []

    def run(command: Sequence[str], threads: int, limit: float | None) -> None:
        cell = json.loads(command[command.index("--cell") + 1])
        if cell["way"] == "packed":
            limits.append(limit)
            timed.run_command(["-c", "import time; time.sleep(60)"], threads, 0.2)
        seconds = {"seconds": 30.0, "processor": 20.0, "peak": 2**21}
        Path(command[command.index("--out") + 1]).write_text(json.dumps(seconds), encoding="utf-8")

    monkeypatch.setattr(benchmark, "run_command", run)
    cell = benchmark.Cell("packed", 64)
    row = benchmark.row(cell, until=benchmark.time.monotonic() + 9)
    assert row == ["minilm", "64", "32", "30.0", "not measured", "", "", "", ""]
    assert 0 < limits[0] < 9
    monkeypatch.setattr(benchmark, "run_command", timed.run_command)
    over = benchmark.row(cell, until=benchmark.time.monotonic())
    assert over == ["minilm", "64", "32", "not measured", "", "", "", "", ""]
