"""Which figures a report has, each with a caption and a text alternative."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from iwlora.compare.number_format import format_difference, format_size
from iwlora.compare.report.figures import heatmaps, plots
from iwlora.compare.report.figures.heatmaps import Heatmap
from iwlora.compare.report.figures.verdict_paths import plot_verdict_paths
from iwlora.compare.report.tables.scores import score_text
from iwlora.compare.report.update_norms import Update
from iwlora.compare.statistics.analysis import TaskAnalysis
from iwlora.compare.statistics.differences import TaskDifference
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.durations import format_duration
from iwlora.results.metric_direction import with_direction
from iwlora.results.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Updates = Mapping[str, Mapping[str, Update]]
"""{label: {site name: update}}."""
Measurements = Mapping[str, tuple[int, Sensitivity]]
"""{label: (seed, sensitivities)} of the first run of each arm that measured importance."""


_IMPORTANCE = "importance-"


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its caption, its text alternative, the stem of its file, and how to draw it."""

    stem: str
    caption: str
    alt_text: str
    draw: partial[Figure]
    """A function and its arguments, which hold all that is drawn: it reads no files."""

    @property
    def is_importance(self) -> bool:
        """Whether it is a map of the importance that an arm measured."""
        return self.stem.startswith(_IMPORTANCE)


def report_figures(task: TaskAnalysis, updates: Updates) -> list[ReportFigure]:
    """The figures of one task, which has a finished run; nothing is drawn yet."""
    measured = _first_measurements(task.comparison)
    return [
        *_scores_and_costs(task),
        *_importance(measured),
        *_update_norms(updates),
        *_ranks(task.comparison, updates, measured),
    ]


def _scores_and_costs(task: TaskAnalysis) -> Iterator[ReportFigure]:
    comparison, differences = task.comparison, task.differences
    metric = comparison.metrics[0]
    title = with_direction(metric)
    scores = "; ".join(
        f"{label} {score_text(comparison, label, metric)}" for label in comparison.arms
    )
    if len(comparison.runs) > 1:
        yield ReportFigure(
            "metric",
            f"Scores by arm ({title}): one dot per seed; above the dots, their mean and its 95% t "
            "interval.",
            f"{metric} by arm: {scores}",
            partial(plots.plot_scores, comparison),
        )
    if comparison.stop and differences:
        yield _verdict_paths(differences, comparison.stop)
    elif any(row.summary.n > 1 for row in differences):
        baseline = differences[0].baseline
        means = "; ".join(
            f"{row.arm} {format_difference(metric, row.summary.mean)}" for row in differences
        )
        yield ReportFigure(
            "differences",
            f"Each arm's {title} minus that of {baseline}, paired by seed: the mean, its 95% t "
            "interval over seeds (thick), and the 95% interval over seeds and examples (thin). An "
            "interval that contains zero is compatible with no difference.",
            f"Differences from {baseline} in {metric}: {means}",
            partial(plots.plot_forest, differences),
        )
    if costs := plots.scores_by_cost(comparison):
        yield ReportFigure(
            "costs",
            f"Score against cost ({title}): mean and 95% interval of each arm. The dotted line "
            "joins the arms that no other arm beats at the same or a lower cost.",
            f"{metric} against {', '.join(costs)}: {scores}; the costs are in the table",
            partial(plots.plot_scores_by_cost, comparison, costs),
        )
    if curves := plots.read_curves(comparison):
        yield ReportFigure(
            "curves",
            "Learning curves: a thin line for each seed, a bold line for their mean.",
            f"Training loss and validation {metric} by step; final scores: {scores}",
            partial(plots.plot_learning_curves, comparison, curves),
        )


def _verdict_paths(differences: Sequence[TaskDifference], rule: StoppingRule) -> ReportFigure:
    metric, baseline = differences[0].metric, differences[0].baseline
    means = "; ".join(
        f"{row.arm} {format_difference(metric, row.summary.mean)} after {row.summary.n}"
        for row in differences
    )
    return ReportFigure(
        "verdicts",
        f"Each arm's {with_direction(metric)} minus that of {baseline} after each draw: the draws "
        "(dots), their mean (line) and the interval that holds at all looks (band). Differences in "
        f"the horizontal band, below {format_size(metric, rule.difference)}, do not matter.",
        f"Differences from {baseline} in {metric} after the last draw: {means}",
        partial(plot_verdict_paths, differences, rule),
    )


def _importance(measured: Measurements) -> Iterator[ReportFigure]:
    """What each arm measured, unless an earlier arm measured the same."""
    seen: list[list[float]] = []
    for label, (seed, sensitivity) in measured.items():
        shares = heatmaps.importance_shares(sensitivity).values()
        rounded = [round(share, 6) for share in shares]
        if rounded in seen:
            continue
        seen.append(rounded)
        largest = heatmaps.most_important(sensitivity)
        yield ReportFigure(
            f"{_IMPORTANCE}{label}",
            f"Importance measured by {label}, seed {seed}: {sensitivity.estimator} estimate over "
            f"{sensitivity.batches} batches in {format_duration(sensitivity.seconds)}.",
            "Largest shares: " + "; ".join(f"{name} {share:.1f}%" for name, share in largest),
            partial(heatmaps.plot_importance, sensitivity),
        )


def _update_norms(updates: Updates) -> Iterator[ReportFigure]:
    panels = []
    largest_by_arm = []
    for label, by_site in updates.items():
        if not by_site:
            continue
        cells = _largest_by_cell((u.depth, u.matrix_type, u.norm) for u in by_site.values())
        panels.append(Heatmap(label, cells, digits=2 if max(cells.values()) < 10 else 1))
        top = sorted(by_site.items(), key=lambda item: -item[1].norm)[:2]
        largest = ", ".join(f"{name} {update.norm:.2f}" for name, update in top)
        largest_by_arm.append(f"{label}: {largest}")
    if panels:
        yield ReportFigure(
            "updates",
            "Update of each matrix: ‖Δ‖ (Frobenius norm) after training, mean over seeds. All arms "
            "share one scale of colors.",
            f"Largest updates: {'; '.join(largest_by_arm)}",
            partial(heatmaps.plot_heatmaps, panels, shared_scale=True),
        )


def _ranks(
    comparison: Comparison, updates: Updates, measured: Measurements
) -> Iterator[ReportFigure]:
    """Final ranks of each arm that chose them, above the first measured importance of any arm."""
    importance = [heatmaps.importance_heatmap(sensitivity) for _, sensitivity in measured.values()]
    below = "; below them the measured importance" if importance else ""
    for label in comparison.arms:
        ranks = _final_ranks(comparison, label, updates.get(label, {}))
        if len(set(ranks.values())) < 2:
            continue
        is_mixture = any(
            part.parameters for run in comparison.of(label) for part in run.result.ranks
        )
        what = "size of each part" if is_mixture else "rank"
        panels = [Heatmap(f"{label}: final {what}, mean over seeds", ranks), *importance[:1]]
        largest = "; ".join(
            f"{matrix_type} of block {block} {rank:.1f}"
            for (block, matrix_type), rank in sorted(ranks.items(), key=lambda item: -item[1])[:3]
        )
        yield ReportFigure(
            f"ranks-{label}",
            f"Final {'sizes of the parts' if is_mixture else 'ranks'} of {label}{below}.",
            f"Largest {'sizes' if is_mixture else 'ranks'}: {largest}",
            partial(heatmaps.plot_heatmaps, panels),
        )


def _final_ranks(
    comparison: Comparison, label: str, updates: Mapping[str, Update]
) -> dict[tuple[int, str], float]:
    """{(block, matrix type): mean rank} as the runs recorded it, else as in their adapters."""
    recorded = [run.result.ranks for run in comparison.of(label) if run.result.ranks]
    if not recorded:
        return _largest_by_cell((u.depth, u.matrix_type, u.rank) for u in updates.values())
    sums: dict[tuple[int, str], float] = {}
    for site in (site for ranks in recorded for site in ranks):
        if site.rank is not None:
            cell = site.depth, site.kind
            sums[cell] = sums.get(cell, 0.0) + site.rank / len(recorded)
    return sums


def _largest_by_cell(
    numbers: Iterable[tuple[int, str, float]],
) -> dict[tuple[int, str], float]:
    """The largest number of the matrices that share a cell, such as experts."""
    cells: dict[tuple[int, str], float] = {}
    for block, matrix_type, number in numbers:
        cells[block, matrix_type] = max(cells.get((block, matrix_type), 0.0), number)
    return cells


def _first_measurements(comparison: Comparison) -> Measurements:
    first: dict[str, tuple[int, Sensitivity]] = {}
    for run in comparison.runs:
        if run.result.label not in first and (sensitivity := run.sensitivity()):
            first[run.result.label] = run.result.seed, sensitivity
    return first
