"""Every finished run in a row."""

from __future__ import annotations

from functools import partial

from iwlora.compare.number_format import format_score
from iwlora.compare.report.tables.scores import COSTS
from iwlora.compare.report.tables.table import Table, count_text, known_text
from iwlora.results.comparison import Comparison
from iwlora.results.layout import learning_rate_text


def run_table(comparison: Comparison) -> Table:
    """Every finished run in a row."""
    train_time = next(cost for cost in COSTS if cost.field == "train_seconds")
    head = ["arm", "seed", *comparison.metrics, "learning rate", "rank", "epochs"]
    head += ["training examples", train_time.title]
    rows = []
    for result in (run.result for run in comparison.runs):
        row = [result.label, str(result.seed)]
        for metric in comparison.metrics:
            row.append(known_text(partial(format_score, metric), result.metrics.get(metric)))
        row.append(known_text(learning_rate_text, result.learning_rate))
        row += [known_text("{:g}".format, setting) for setting in (result.rank, result.epochs)]
        row += [known_text(count_text, result.train_examples), train_time.mean([result])]
        rows.append(row)
    return Table("Runs", "Every finished run.", head, rows)
