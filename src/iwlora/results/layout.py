"""Where the folder of a comparison keeps what a search has tried."""

from __future__ import annotations

from pathlib import Path


def tried_at(comparison: Path, label: str, lr: float) -> Path:
    """``<comparison>/<label>/search/lr-<rate>``: the trials of an arm at a learning rate.

    >>> tried_at(Path("runs/a"), "lora", 1e-3).as_posix()
    'runs/a/lora/search/lr-0.001'
    """
    return comparison / label / "search" / f"lr-{lr:g}"
