"""The steps that are timed are those of a new user."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from iwlora.training.suggestion.recipe import suggest

ROOT = Path(__file__).parents[2]


def test_the_demo_is_that_of_the_makefile(script: Any) -> None:
    benchmark = script("first_hour")
    makefile = (ROOT / "Makefile").read_text()
    demo = re.search(r"^demo: .*\n\t\$\(BIN\)/iwlora (.*)$", makefile, re.MULTILINE)
    assert demo is not None
    assert demo[1].split() == benchmark.DEMO


def test_own_data_are_read_without_a_recipe(script: Any, tmp_path: Path) -> None:
    script("first_hour").write_reviews(tmp_path / "reviews.csv")
    task = suggest(str(tmp_path / "reviews.csv"), []).recipe.task
    assert (task.text, task.label) == (["Review Text"], "Sentiment")


def test_commands_are_timed_in_the_clone(script: Any, tmp_path: Path) -> None:
    clone = script("first_hour").Clone(tmp_path, Path(sys.prefix), without_bf16=True)
    assert clone.command(["train", "a"])[-2:] == ["a", "train.precision=fp32"]
    assert clone.command(["tasks"])[-1] == "tasks"
    python = clone.command([""])[0]
    write = "import os; open('isa', 'w').write(os.environ['ONEDNN_MAX_CPU_ISA'])"
    assert 0 < clone.seconds([python, "-c", write]) < 60
    assert (tmp_path / "isa").read_text() == "AVX2"
    with pytest.raises(RuntimeError, match="ended with 3"):
        clone.seconds([python, "-c", "exit(3)"])
    slow = "import time; print('begin', flush=True); time.sleep(60)"
    assert clone.seconds_to_first_line([python, "-c", slow]) < 50
