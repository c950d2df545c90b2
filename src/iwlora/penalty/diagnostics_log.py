"""``penalty.jsonl``: the penalty's effect at each logging step, for each site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from iwlora.penalty.diagnostics import Effect
from iwlora.results.formats import append_record, truncate_log

Ratios = dict[str, float]


def truncate(path: Path, step: int, write: bool = True) -> list[Ratios]:
    """{site: ratio} of each record up to ``step``, where training resumes.

    With ``write``, later and incomplete records are removed from the file.
    """
    return [
        {
            name: math.inf if site["ratio"] is None else site["ratio"]
            for name, site in record["sites"].items()
        }
        for record in truncate_log(path, step, write)
    ]


def append(path: Path, step: int, effects: Mapping[str, Effect]) -> None:
    """Add ‖Δ_k‖_F and the ratio of gradients of each site; an infinite ratio is null."""
    sites = {
        name: {"norm": e.norm, "ratio": e.ratio if math.isfinite(e.ratio) else None}
        for name, e in effects.items()
    }
    append_record(path, "penalty", {"step": step, "sites": sites})
