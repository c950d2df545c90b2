"""The command that measures the price of a pool, on a few rows and a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_every_arm_is_scored_beside_the_union(
    script: Any, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark, folder = script("pools"), tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    rows = [f"it is a {('bad', 'good')[k % 2]} film\t{k % 2}" for k in range(16)]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    asked = ["--glue", str(tmp_path / "glue"), "--out", str(tmp_path / "out")]
    asked += ["--model", str(tiny_bert), "--methods", "apt", "--sources", "1", "2"]
    benchmark.main([*asked, "--seeds", "1", "--epochs", "1", "--lr", "apt=0.02"])
    lines = capsys.readouterr().out.splitlines()
    for schedule in ("epochs", "steps"):
        start = lines.index(f"Each source has as many {schedule} as the union.")
        assert lines[start + 2] == "| arm | 1 sources | 2 sources |"
        arms = [line.split(" | ")[0].removeprefix("| ") for line in lines[start + 4 : start + 8]]
        assert arms == [
            "apt: pool",
            "apt: best single source",
            "apt: prompts mean",
            "apt: prompts side by side",
        ]
        assert all("(" in line for line in lines[start + 4 : start + 8])
    runs = sorted(path.parent.name for path in (tmp_path / "out").rglob("result.json"))
    runs = [name for name in runs if name.startswith("apt")]
    assert runs == ["apt-0", "apt-0-epochs", "apt-0-steps", "apt-1-epochs", "apt-1-steps"]
