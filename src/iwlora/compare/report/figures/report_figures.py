"""Which figures a report has, each with a caption and a text alternative."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from iwlora.compare.number_format import format_difference, format_duration
from iwlora.compare.report.figures.heatmaps import (
    Heatmap,
    importance_heatmap,
    importance_shares,
    most_important,
    plot_heatmaps,
    plot_importance,
)
from iwlora.compare.report.figures.plots import (
    plot_forest,
    plot_learning_curves,
    plot_scores,
    plot_scores_by_cost,
    read_curves,
    scores_by_cost,
)
from iwlora.compare.report.tables import score_text
from iwlora.compare.report.update_norms import Update
from iwlora.compare.statistics.analysis import TaskAnalysis, TaskDifference
from iwlora.results.comparison import Comparison
from iwlora.results.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Updates = Mapping[str, Mapping[str, Update]]
"""{label: {site name: update}}."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its caption, its text alternative, the stem of its file, and how to draw it."""

    stem: str
    caption: str
    alt_text: str
    draw: Callable[[], Figure]


def report_figures(task: TaskAnalysis, updates: Updates) -> list[ReportFigure]:
    """The figures of one task, which has a finished run; nothing is drawn yet."""
    comparison = task.comparison
    return [
        *_scores(comparison),
        *_differences(task.differences),
        *_costs(comparison),
        *_learning_curves(comparison),
        *_importance(comparison),
        *_update_norms(updates),
        *_ranks(comparison, updates),
    ]


def _scores(comparison: Comparison) -> Iterator[ReportFigure]:
    if len(comparison.runs) == 1:
        return
    metric = comparison.metrics[0]
    yield ReportFigure(
        "metric",
        f"Scores by arm ({metric}): one dot per seed; above the dots, their mean and its 95% t "
        "interval.",
        f"{metric} by arm: {_score_texts(comparison)}",
        partial(plot_scores, comparison),
    )


def _differences(differences: Sequence[TaskDifference]) -> Iterator[ReportFigure]:
    if all(row.summary.low is None for row in differences):
        return
    metric, baseline = differences[0].metric, differences[0].baseline
    means = "; ".join(
        f"{row.arm} {format_difference(metric, row.summary.mean)}" for row in differences
    )
    yield ReportFigure(
        "differences",
        f"Each arm's {metric} minus that of {baseline}, paired by seed: the mean, its 95% t "
        "interval over seeds (thick), and the 95% interval over seeds and examples (thin). An "
        "interval that contains zero is compatible with no difference.",
        f"Differences from {baseline} in {metric}: {means}",
        partial(plot_forest, differences),
    )


def _costs(comparison: Comparison) -> Iterator[ReportFigure]:
    panels = scores_by_cost(comparison)
    if not panels:
        return
    metric = comparison.metrics[0]
    yield ReportFigure(
        "costs",
        f"Score against cost ({metric}): mean and 95% interval of each arm. The dotted line joins "
        "the arms that no other arm beats at the same or a lower cost.",
        f"{metric} against {', '.join(panels)}: {_score_texts(comparison)}; the costs are in the "
        "table",
        partial(plot_scores_by_cost, comparison, panels),
    )


def _learning_curves(comparison: Comparison) -> Iterator[ReportFigure]:
    panels = read_curves(comparison)
    if not panels:
        return
    yield ReportFigure(
        "curves",
        "Learning curves: a thin line for each seed, a bold line for their mean.",
        f"Training loss and validation {comparison.metrics[0]} by step; final scores: "
        f"{_score_texts(comparison)}",
        partial(plot_learning_curves, comparison, panels),
    )


def _importance(comparison: Comparison) -> Iterator[ReportFigure]:
    """What each arm measured, unless an earlier arm measured the same."""
    seen: list[list[float]] = []
    for label in comparison.arms:
        measurement = _first_measurement(comparison, label)
        if measurement is None:
            continue
        seed, sensitivity = measurement
        shares = [round(share, 6) for share in importance_shares(sensitivity).values()]
        if shares in seen:
            continue
        seen.append(shares)
        top = "; ".join(f"{name} {share:.1f}%" for name, share in most_important(sensitivity))
        yield ReportFigure(
            f"importance-{label}",
            f"Importance measured by {label}, seed {seed}: {sensitivity.estimator} estimate over "
            f"{sensitivity.batches} batches in {format_duration(sensitivity.seconds)}.",
            f"Largest shares: {top}",
            partial(plot_importance, sensitivity),
        )


def _update_norms(updates: Updates) -> Iterator[ReportFigure]:
    heatmaps = []
    largest_by_arm = []
    for label, by_site in updates.items():
        if not by_site:
            continue
        cells = _largest_by_cell((u.depth, u.matrix_type, u.norm) for u in by_site.values())
        heatmaps.append(Heatmap(label, cells, digits=2 if max(cells.values()) < 10 else 1))
        top = sorted(by_site.items(), key=lambda item: -item[1].norm)[:2]
        largest = ", ".join(f"{name} {update.norm:.2f}" for name, update in top)
        largest_by_arm.append(f"{label}: {largest}")
    if heatmaps:
        yield ReportFigure(
            "updates",
            "Update of each matrix: ‖Δ‖ (Frobenius norm) after training, mean over seeds. All arms "
            "share one scale of colours.",
            f"Largest updates: {'; '.join(largest_by_arm)}",
            partial(plot_heatmaps, heatmaps, shared_scale=True),
        )


def _ranks(comparison: Comparison, updates: Updates) -> Iterator[ReportFigure]:
    """Final ranks of each arm that chose them, above the first measured importance of any arm."""
    measurements = (_first_measurement(comparison, label) for label in comparison.arms)
    measurement = next(filter(None, measurements), None)
    for label in comparison.arms:
        ranks = _final_ranks(comparison, label, updates.get(label, {}))
        if len(set(ranks.values())) < 2:
            continue
        heatmaps = [Heatmap(f"{label}: final rank, mean over seeds", ranks)]
        caption = f"Final ranks of {label}."
        if measurement:
            heatmaps.append(importance_heatmap(measurement[1]))
            caption = f"Final ranks of {label}, and below the importance measured before training."
        top = sorted(ranks.items(), key=lambda item: -item[1])[:3]
        alt_text = "Largest ranks: " + "; ".join(
            f"{matrix_type} of block {block} {rank:.1f}" for (block, matrix_type), rank in top
        )
        yield ReportFigure(f"ranks-{label}", caption, alt_text, partial(plot_heatmaps, heatmaps))


def _final_ranks(
    comparison: Comparison, label: str, updates: Mapping[str, Update]
) -> dict[tuple[int, str], float]:
    """{(block, matrix type): mean rank} as the runs recorded it, else as in their adapters."""
    recorded = [run.result.ranks for run in comparison.of(label) if run.result.ranks]
    if not recorded:
        return _largest_by_cell((u.depth, u.matrix_type, u.rank) for u in updates.values())
    sums: dict[tuple[int, str], float] = {}
    for site in (site for ranks in recorded for site in ranks):
        cell = site.depth, site.kind
        sums[cell] = sums.get(cell, 0.0) + site.rank / len(recorded)
    return sums


def _largest_by_cell(
    numbers: Iterator[tuple[int, str, float]],
) -> dict[tuple[int, str], float]:
    """The largest number of the matrices that share a cell, such as experts."""
    cells: dict[tuple[int, str], float] = {}
    for block, matrix_type, number in numbers:
        cells[block, matrix_type] = max(cells.get((block, matrix_type), 0.0), number)
    return cells


def _score_texts(comparison: Comparison) -> str:
    metric = comparison.metrics[0]
    return "; ".join(
        f"{label} {score_text(comparison, label, metric)}" for label in comparison.arms
    )


def _first_measurement(comparison: Comparison, label: str) -> tuple[int, Sensitivity] | None:
    """(seed, sensitivities) of the first run of an arm that measured importance."""
    for run in comparison.of(label):
        if sensitivity := run.sensitivity():
            return run.result.seed, sensitivity
    return None
