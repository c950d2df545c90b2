"""``penalty.jsonl``: the penalty's effect at each logging step, for each site."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from iwlora.inputs.yaml_json import from_json
from iwlora.penalty.diagnostics import Effect
from iwlora.results.formats import stamped
from iwlora.results.writing import write_text

Ratios = dict[str, float]


def truncate(path: Path, step: int, write: bool = True) -> list[Ratios]:
    """{site: ratio} of each record up to ``step``, where training resumes.

    With ``write``, later and incomplete records are removed from the file.
    """
    kept, history = [], []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = from_json(line)
        except ValueError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
            ratios = {name: site["ratio"] for name, site in record["sites"].items()}
            history.append({name: math.inf if r is None else r for name, r in ratios.items()})
    if write and path.is_file():
        write_text(path, "".join(kept))
    return history


def append(path: Path, step: int, effects: Mapping[str, Effect]) -> None:
    """Add ‖Δ_k‖_F and the ratio of gradients of each site; an infinite ratio is null."""
    sites = {
        name: {"norm": e.norm, "ratio": e.ratio if math.isfinite(e.ratio) else None}
        for name, e in effects.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(stamped("penalty", {"step": step, "sites": sites})) + "\n")
