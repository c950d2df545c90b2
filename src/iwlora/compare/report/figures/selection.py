"""Which figures a report has, each with a caption and with words for who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iwlora.compare.number_format import format_difference, format_duration
from iwlora.compare.report.figures import plots
from iwlora.compare.report.figures.forest import forest_plot
from iwlora.compare.report.figures.heatmaps import (
    Grid,
    heatmaps,
    importance_grid,
    most_important,
    shares,
)
from iwlora.compare.report.tables import table
from iwlora.compare.report.update_norms import Update, updates_of
from iwlora.compare.statistics.analysis import Compared
from iwlora.results.comparison import Comparison
from iwlora.results.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with its caption, its words for who cannot see it, and its file name."""

    stem: str
    caption: str
    alt: str
    figure: Figure


def pictures(comparison: Comparison, compared: Sequence[Compared] = ()) -> Iterator[Picture]:
    """The figures of one task; ``compared`` are its arms against the baseline."""
    if not comparison.runs:
        return
    shown = table(comparison)
    metric = comparison.metrics[0]
    scores = "; ".join(f"{row[0]} {row[2]}" for row in shown.rows)
    if len(comparison.runs) > 1:
        caption = (
            f"{metric}: a dot for each seed; above the dots their mean and its 95% t interval."
        )
        alt = f"{shown.head[2]} by arm: {scores}"
        yield Picture("metric", caption, alt, plots.metric_by_arm(comparison))
    if any(arm.pair.summary.low is not None for arm in compared):
        caption = (
            f"{metric} of each arm minus that of {compared[0].pair.baseline}, paired by seed: the "
            "mean, its 95% t interval over seeds (thick), and the 95% interval over seeds and "
            "examples (thin). An interval that contains zero is compatible with no difference."
        )
        alt = f"Differences from {compared[0].pair.baseline} in {metric}: " + "; ".join(
            f"{arm.pair.arm} {format_difference(metric, arm.pair.summary.mean)}" for arm in compared
        )
        yield Picture("differences", caption, alt, forest_plot(compared))
    if costs := plots.quality_by_cost(comparison):
        caption = (
            f"{metric} against what it costs: mean and 95% interval of each arm. The dotted line "
            "joins the arms that none beats at the same cost or less."
        )
        alt = f"{metric} against parameters, time and memory: {scores}; costs are in the table"
        yield Picture("costs", caption, alt, costs)
    if curves := plots.learning_curves(comparison):
        caption = "Learning curves: a thin line for each seed, a bold one for their mean."
        alt = f"Training loss and validation {metric} by step; at the end: {scores}"
        yield Picture("curves", caption, alt, curves)
    yield from _measured(comparison)
    updates = {
        label: found for label in comparison.arms if (found := updates_of(comparison, label))
    }
    updates = {label: found for label, found in updates.items() if found}
    if updates:
        yield _norms(updates)
    yield from _ranks(comparison, updates)


def first_measured(comparison: Comparison, label: str) -> tuple[int, Sensitivity] | None:
    """(seed, what it measured) of the first run of an arm that measured something."""
    for run in comparison.of(label):
        if measured := run.sensitivity():
            return run.result.seed, measured
    return None


def _measured(comparison: Comparison) -> Iterator[Picture]:
    """What each arm measured, but for what an arm before it has measured already."""
    seen: list[list[float]] = []
    for label in comparison.arms:
        if found := first_measured(comparison, label):
            seed, measured = found
            values = [round(share, 6) for share in shares(measured).values()]
            if values in seen:
                continue
            seen.append(values)
            caption = (
                f"Importance measured by {label}, seed {seed}: {measured.estimator} estimate over "
                f"{measured.batches} batches in {format_duration(measured.seconds)}."
            )
            top = most_important(measured)
            alt = "Largest shares: " + "; ".join(f"{n} {percent:.1f}%" for n, percent in top)
            figure = heatmaps([importance_grid(measured)])
            yield Picture(f"importance-{label}", caption, alt, figure)


def _norms(updates: dict[str, dict[str, Update]]) -> Picture:
    grids = []
    told = []
    for label, found in updates.items():
        cells = _cells({name: (one.depth, one.kind, one.norm) for name, one in found.items()})
        largest = max(max(cells.values()), 1e-12)
        grids.append(Grid(label, cells, digits=2 if largest < 10 else 1))
        top = sorted(found.items(), key=lambda item: -item[1].norm)[:2]
        told.append(f"{label}: " + ", ".join(f"{name} {one.norm:.2f}" for name, one in top))
    caption = (
        "Where the update went: ‖Δ‖ (Frobenius norm) of each matrix after training, mean over "
        "seeds, all arms on one scale of colours."
    )
    alt = "Largest updates: " + "; ".join(told)
    return Picture("updates", caption, alt, heatmaps(grids, alike=True))


def _ranks(comparison: Comparison, updates: dict[str, dict[str, Update]]) -> Iterator[Picture]:
    """Final ranks of each arm that chose them, beside what any arm measured as important."""
    measured = next(
        (found for label in comparison.arms if (found := first_measured(comparison, label))), None
    )
    for label in comparison.arms:
        ranks = _chosen(comparison, label, updates.get(label, {}))
        if len(set(ranks.values())) < 2:
            continue
        grids = [Grid(f"{label}: final rank, mean over seeds", ranks)]
        beside = ""
        if measured:
            grids.append(importance_grid(measured[1]))
            beside = "; below it the importance that was measured before training"
        caption = f"The ranks that {label} ended with{beside}."
        top = sorted(ranks.items(), key=lambda item: -item[1])[:3]
        alt = "Largest ranks: " + "; ".join(
            f"{kind} of block {depth} {rank:.1f}" for (depth, kind), rank in top
        )
        yield Picture(f"ranks-{label}", caption, alt, heatmaps(grids))


def _chosen(
    comparison: Comparison, label: str, updates: dict[str, Update]
) -> dict[tuple[int, str], float]:
    """{(block, kind): mean rank} as the runs told it, else as their adapters have it."""
    told = [run.result.ranks for run in comparison.of(label) if run.result.ranks]
    if told:
        sums: dict[tuple[int, str], float] = {}
        for ranks in told:
            for one in ranks:
                place = one.depth, one.kind
                sums[place] = sums.get(place, 0.0) + one.rank / len(told)
        return sums
    return _cells({name: (one.depth, one.kind, one.rank) for name, one in updates.items()})


def _cells(found: dict[str, tuple[int, str, float]]) -> dict[tuple[int, str], float]:
    """The largest of the matrices that share a cell (experts, say)."""
    cells: dict[tuple[int, str], float] = {}
    for depth, kind, number in found.values():
        cells[depth, kind] = max(cells.get((depth, kind), 0.0), number)
    return cells
