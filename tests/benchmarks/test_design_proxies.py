"""The table of proxies, from a comparison of mixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from comparison_folders import write_comparison
from iwlora.compare.statistics.designs.proxies import LAYERS, PARAMETERS, SENSITIVITY
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity


@pytest.mark.quick
def test_the_table_reads_what_runs_recorded(
    script: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_comparison(tmp_path / "compared", arms=("full", "lora"), seeds=8)
    for arm, upper in (("full", 30), ("lora", 90)):
        for run in (folder / arm).glob("seed-*"):
            stored = json.loads((run / "result.json").read_text())
            ranks = [
                {"name": f"layer.{k}", "kind": "lora", "depth": k, "rank": 2, "parameters": count}
                for k, count in enumerate((50, upper))
            ]
            (run / "result.json").write_text(json.dumps(stored | {"ranks": ranks}))
    sites = [SiteSensitivity(f"layer.{k}.query", "query", k, 4, 4, 1.0 + k, 0.1) for k in (0, 1)]
    Sensitivity(tuple(sites), "exact", 8, 0.01, True, 0.1).save(tmp_path / "importance.json")
    script("design_proxies").main([str(folder), "--importance", str(tmp_path / "importance.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "16 runs, 8 draws"
    cells = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("|")}
    assert cells[LAYERS].startswith(f"| {LAYERS} | +0.00 ")
    assert cells[PARAMETERS].split(" | ")[1] == cells[SENSITIVITY].split(" | ")[1], "one order"
    assert cells[PARAMETERS].endswith("| – |")
    assert cells[SENSITIVITY].endswith(", 1.000 |"), "its only other order is the reverse"
