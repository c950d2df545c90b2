"""Every run of a report as a row of CSV, which ``iwlora compare`` reads back."""

from __future__ import annotations

import csv
import io

from iwlora.compare.report.content import ReportContent
from iwlora.compare.report.tables.scores import COSTS
from iwlora.inputs.formulas import mark_formula


def runs_csv(content: ReportContent) -> str:
    """One row per finished run: method, task, seed, score, costs, all metrics, and its floors."""
    comparisons = content.analysis.comparisons
    metrics = list(dict.fromkeys(name for c in comparisons for name in c.metrics))
    floors = list(
        dict.fromkeys(f.name for c in comparisons for run in c.runs for f in run.result.floors)
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["method", "task", "model", "seed", "metric", "score", "learning_rate"]
        + [cost.field for cost in COSTS]
        + [mark_formula(metric) for metric in metrics]
        + [mark_formula(f"floor: {name}") for name in floors]
    )
    for comparison, result in ((c, run.result) for c in comparisons for run in c.runs):
        names = (result.label, comparison.task, comparison.model, result.seed)
        texts = [mark_formula(str(name)) for name in (*names, result.primary_metric)]
        numbers = [result.score, result.learning_rate, *(cost.of(result) for cost in COSTS)]
        scores = {floor.name: floor.metrics.get(result.primary_metric) for floor in result.floors}
        numbers += [result.metrics.get(name) for name in metrics] + [*map(scores.get, floors)]
        writer.writerow([*texts, *numbers])
    return text.getvalue()
