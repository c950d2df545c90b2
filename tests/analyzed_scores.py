"""Analyses of scores that a test writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iwlora.compare.statistics.analysis import Analysis, TaskAnalysis, analyze
from iwlora.compare.statistics.bootstrap import Interval
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run, RunResult

LORA = [0.60, 0.61, 0.59, 0.60, 0.62, 0.60, 0.61, 0.59]
BETTER = [score + 0.05 + 0.001 * (seed % 3) for seed, score in enumerate(LORA)]
EQUAL = [score + 0.01 * (-1) ** seed for seed, score in enumerate(LORA)]


def analyzed(
    scores: Mapping[str, Sequence[float]],
    metric: str = "accuracy",
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Analysis:
    """The analysis of {label: scores by seed} and {label: other fields of its results}."""
    runs = []
    for label, by_seed in scores.items():
        fields = {"label": label, "model": "m", **(known or {}).get(label, {})}
        for seed, score in enumerate(by_seed):
            result = RunResult.from_score(label, "t", seed, metric, score, **fields)
            runs.append(Run(None, result))
    seeds = tuple(range(max(map(len, scores.values()))))
    return analyze([Comparison(Path("runs/c"), "m", "t", tuple(scores), seeds, tuple(runs), ())])


def over_tasks(*analyses: Analysis) -> Analysis:
    """The analysis of several tasks together, ``t0``, ``t1`` and so on."""
    comparisons = []
    for number, analysis in enumerate(analyses):
        (comparison,) = analysis.comparisons
        runs = tuple(
            replace(run, result=run.result.model_copy(update={"task": f"t{number}"}))
            for run in comparison.runs
        )
        comparisons.append(replace(comparison, task=f"t{number}", runs=runs))
    return analyze(comparisons)


def over_rows(analysis: Analysis, low: float, high: float, rows: int) -> Analysis:
    """The same analysis of two arms with another interval over seeds and rows."""
    task = analysis.tasks[0]
    row = task.differences[0]
    wide = Interval(row.summary.mean, low, high, examples=True)
    variance = ((high - row.summary.mean) / 2.36) ** 2
    row = replace(row, interval=wide, rows=rows, variance=variance)
    return replace(analysis, tasks=(TaskAnalysis(task.comparison, (row,)),))
