"""The sizes of the parts of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from iwlora.compare.report.tables.table import Table, count_text
from iwlora.results.comparison import Comparison
from iwlora.results.run import SiteRank


def size_table(comparison: Comparison) -> Table | None:
    """The parts of each layer of each mixture, with their sizes; None if there is no mixture."""
    rows: list[list[str]] = []
    for label in comparison.arms:
        layers: dict[str, dict[str, list[SiteRank]]] = {}
        for run in comparison.of(label):
            for part in run.result.ranks:
                if part.parameters is not None:
                    layers.setdefault(part.name, {}).setdefault(part.kind, []).append(part)
        for layer, parts in layers.items():
            sizes = ", ".join(f"{kind}{_sizes(same)}" for kind, same in parts.items())
            counts = (fmean(part.parameters or 0 for part in same) for same in parts.values())
            rows.append([label, layer, sizes, count_text(sum(counts))])
    caption = (
        "The parts of each layer with their sizes: rank, bottleneck or number of prefix tokens; "
        "means of the parameters where seeds differ."
    )
    head = ["arm", "layer", "parts", "parameters"]
    return Table("Sizes of mixtures", caption, head, rows) if rows else None


def _sizes(same: Sequence[SiteRank]) -> str:
    """The size of a part, or the smallest and the largest over seeds; nothing for biases."""
    known = [part.rank for part in same if part.rank is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f" {low:g}" if low == high else f" {low:g} to {high:g}"
