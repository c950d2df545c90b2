"""A comparison that is killed ends where one that is left alone ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import compare_kills
from commands import TRAIN, run_settings, write_recipe

SCRIPT = str(compare_kills.__file__)


def test_three_kills_change_nothing(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    methods = [{"name": name, "rank": 4} for name in ("lora", "iw-lora")]
    train = {**TRAIN, "save_steps": 2}
    settings = run_settings(tiny_bert, reviews, methods=methods, seeds=[0], train=train)
    del settings["method"]
    recipe = write_recipe(tmp_path / "plan.yaml", settings)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, str(recipe), "--kills", "3"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"killed 3 times before an\s+end", done.stdout)
    assert "the summaries are the same" in done.stdout


def test_summaries_that_differ_in_more_than_time_are_noticed(tmp_path: Path) -> None:
    for name, score, seconds in (("a", 0.5, 1.0), ("b", 0.5, 2.0), ("c", 0.6, 1.0)):
        (tmp_path / name).mkdir()
        arm = {"label": "lora", "metrics": {"f1": score}, "train_seconds": {"0": seconds}}
        (tmp_path / name / "summary.json").write_text(json.dumps({"arms": [arm]}))
    a, b, c = (compare_kills.summary(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
