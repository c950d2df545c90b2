"""The control that needs no training: predictions divided by a temperature T.

p_i ∝ exp(z_i / T), where T minimizes the loss on the official split. It mends a model that is too
confident, so a form that lowers the held-out loss has to be compared with it.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from iwlora.compare.number_format import format_score
from iwlora.compare.statistics.paired_tests import summarize
from iwlora_study.runner.forms import Form
from iwlora_study.runner.page.markdown import difference, table
from iwlora_study.runner.scores import CellScores
from iwlora_study.runner.verdicts import on_floor

_HEAD = [
    "cell",
    "arm",
    "loss",
    "loss after the temperature",
    "improvement over the baseline, both after it",
    "ECE",
    "ECE after it",
    "median temperature",
]


def temperature_table(stored: Sequence[CellScores], forms: Sequence[Form]) -> str:
    """The arms of the cells that have a form whose outcome is the held-out loss.

    Intervals are mean ± t(0.975, n − 1) · sd / √n, for each comparison by itself. Cells on their
    floor are left out. Empty without such a cell.
    """
    asked = {form.arm for form in forms if form.outcome == "loss"}
    shown = (s for s in stored if asked & {*s.arms} and not on_floor(s))
    rows = [row for scores in shown for row in _rows(scores)]
    return table(_HEAD, rows) if rows else ""


def _rows(scores: CellScores) -> list[list[str]]:
    base = scores.values(scores.baseline, "loss_rescaled")
    rows = []
    for arm in scores.arms:
        after, against = scores.values(arm, "loss_rescaled"), "–"
        if not after:
            continue
        shared = sorted(base.keys() & after.keys())
        if shared and arm != scores.baseline:
            summary = summarize([base[seed] - after[seed] for seed in shared])
            against = difference("loss", summary.mean, summary.low, summary.high)
        rows.append(
            [
                scores.cell.partition("-")[0],
                arm,
                _mean("loss", scores.values(arm, "loss")),
                _mean("loss", after),
                against,
                _mean("calibration_error", scores.values(arm, "calibration_error")),
                _mean("calibration_error", scores.values(arm, "calibration_error_rescaled")),
                f"{median(scores.values(arm, 'temperature').values()):.2f}",
            ]
        )
    return rows


def _mean(metric: str, values: Mapping[int, float]) -> str:
    return format_score(metric, fmean(values.values()))
