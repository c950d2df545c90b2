"""Runs of three methods on rows of their own, and one pool of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.compose.compose import compose
from iwlora.training.run import train
from runs import recipe

METHODS = {"a": "lora", "b": "head", "c": "bitfit"}


def write_rows(path: Path, words: tuple[str, str], filler: str) -> Path:
    """Sixteen rows about films, half of them positive."""
    lines = ["text,mood"]
    for row in range(16):
        mood = row % 2
        texts = " ".join([filler] * (row // 4))
        lines.append(f"it is a {words[mood]} film {texts},{('neg', 'pos')[mood]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def runs(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs a, b and c: other methods and training rows, the same scored rows."""
    folder = tmp_path_factory.mktemp("sources")
    scored = write_rows(folder / "scored.csv", ("awful", "great"), "the")
    words = {"a": ("bad", "good"), "b": ("awful", "great"), "c": ("bad", "great")}
    for seed, (name, method) in enumerate(METHODS.items()):
        rows = write_rows(folder / f"{name}.csv", words[name], ("that", "some", "seen")[seed])
        task = {"train": str(rows), "validation": str(scored), "text": "text", "label": "mood"}
        train(recipe(tiny_bert, task, method, lr=5e-2, batch_size=4, seed=seed), folder / name)
    return folder


@pytest.fixture(scope="session")
def pool(runs: Path) -> Path:
    return compose([runs / name for name in METHODS], runs / "pool")
