"""What each strategy adds in each group: effects estimated from designs in which they vary."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from iwlora.compare.number_format import as_printed
from iwlora.compare.statistics.designs.factorial import Array, factor_effects
from iwlora.methods.grouped.grouping import is_tuned
from iwlora.methods.grouped.parts import STRATEGIES
from iwlora.results.comparison.designs import DrawnRun, EffectSummary


def strategy_effects(
    runs: Sequence[tuple[str, DrawnRun]], metric: str, error: float
) -> list[EffectSummary]:
    """The effect of each strategy in each group on the score, in points.

    Scores and designs are compared within a choice: the mean of its runs is taken away. Runs of one
    draw share their design but for one choice and are not independent, so that each draw counts
    once, with the mean over its runs. A group that is not tuned has no strategies.

    Args:
        runs: (name of the stage, run).
        metric: The name of the score.
        error: The probability that any interval misses its effect.

    Returns:
        For each group and strategy that some design has; without numbers where the designs cannot
        tell, or are too few.
    """
    scored = [(stage, run) for stage, run in runs if run.score is not None]
    scores = [as_printed(metric, run.score) for _, run in scored if run.score is not None]
    groups = max((len(run.point["strategies"]) for _, run in scored), default=0)
    names = [
        (group, strategy)
        for group in range(1, groups + 1)
        for strategy in STRATEGIES
        if any(strategy in run.point["strategies"][group - 1] for _, run in scored)
    ]
    if not names:
        return []
    table = np.array(
        [
            [score, *(_has(run.point, *name) for name in names)]
            for score, (_, run) in zip(scores, scored, strict=True)
        ],
        dtype=float,
    )
    within = _without_means(table, [(stage, run.choice) for stage, run in scored])
    draws = _means(within, [(stage, run.draw) for stage, run in scored])
    stages = len({stage for stage, _ in scored})
    try:
        found = factor_effects(draws[:, 1:], [*draws[:, 0]], error, stages)
    except ValueError:  # fewer draws than effects
        found = [None] * len(names)
    return [
        EffectSummary(group=group, strategy=strategy, **(vars(effect) if effect else {}))
        for (group, strategy), effect in zip(names, found, strict=True)
    ]


def _rows(keys: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each key."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [*rows.values()]


def _without_means(table: Array, keys: Sequence[Hashable]) -> Array:
    """The table minus the mean row of each key."""
    result: Array = table.copy()
    for rows in _rows(keys):
        result[rows] -= table[rows].mean(0)
    return result


def _means(table: Array, keys: Sequence[Hashable]) -> Array:
    """The mean row of each key."""
    means: Array = np.array([table[rows].mean(0) for rows in _rows(keys)])
    return means


def _has(point: Mapping[str, Any], group: int, strategy: str) -> bool:
    return is_tuned(point["tuned"], group) and strategy in point["strategies"][group - 1]
