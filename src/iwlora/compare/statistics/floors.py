"""The floors of several runs: the mean margin over seeds, with an interval over seeds and rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from iwlora.compare.statistics.paired_tests import summarize
from iwlora.results.run import FloorScore, RunResult


def mean_floors(results: Sequence[RunResult]) -> list[FloorScore]:
    """The floors that all runs of an arm have, each with its mean over the runs.

    With half-widths h of the runs' intervals over rows and s of the interval over seeds, that of
    the mean is √(mean(h)² + s²): the seeds share their rows, so more seeds do not narrow h.

    Args:
        results: The runs of one arm on one task.

    Example:
        >>> def run(seed, score, margin):
        ...     floor = FloorScore(name="mean", trivial=True, rows=9, metrics={"f1": 0.5},
        ...                        margin=margin, low=margin - 0.03, high=margin + 0.03)
        ...     return RunResult.from_score("lora", "t", seed, "f1", score, model="m",
        ...                                 floors=[floor])
        >>> (mean,) = mean_floors([run(0, 0.75, 0.25), run(1, 0.75, 0.25)])
        >>> mean.margin, round(mean.low, 2), round(mean.high, 2)
        (0.25, 0.22, 0.28)
    """
    by_name = [{floor.name: floor for floor in result.floors} for result in results]
    names = list(by_name[0]) if by_name else []
    return [
        _mean([floors[name] for floors in by_name])
        for name in names
        if all(name in floors for floors in by_name)
    ]


def _mean(floors: Sequence[FloorScore]) -> FloorScore:
    shared = [name for name in floors[0].metrics if all(name in f.metrics for f in floors)]
    metrics = {name: fmean(floor.metrics[name] for floor in floors) for name in shared}
    rows = min(floor.rows for floor in floors)
    margins = [floor.margin for floor in floors if floor.margin is not None]
    low = high = margin = None
    if len(margins) == len(floors):
        margin = fmean(margins)
        widths = [
            (floor.high - floor.low) / 2
            for floor in floors
            if floor.low is not None and floor.high is not None
        ]
        if len(widths) == len(floors):
            summary = summarize(margins)
            over_seeds = 0.0 if summary.high is None else summary.high - margin
            half = math.hypot(fmean(widths), over_seeds)
            low, high = margin - half, margin + half
    return floors[0].model_copy(
        update={"metrics": metrics, "rows": rows, "margin": margin, "low": low, "high": high}
    )
