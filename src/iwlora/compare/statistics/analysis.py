"""The analysis of a comparison: each arm against the baseline, on each task and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.bootstrap import (
    METRICS,
    Aggregate,
    Interval,
    PairedPredictions,
    interquartile_mean,
    mean_over_tasks,
    probability_of_improvement,
    variance_of_mean,
    weighted_scores,
)
from iwlora.compare.statistics.paired_tests import (
    MIN_SEEDS,
    SIGNIFICANCE,
    PairedDifference,
    Summary,
    adjust,
    default_baseline,
    holm,
    paired_difference,
    seeds_needed,
    sign_flip_p,
    summarise,
)
from iwlora.errors import IwloraError, unknown
from iwlora.results.comparison import Comparison


@dataclass(frozen=True)
class TaskDifference:
    """One arm against the baseline on one task."""

    paired: PairedDifference
    interval: Interval
    """Over seeds and examples."""


@dataclass(frozen=True)
class TaskAnalysis:
    """The comparison on one task and the difference of each arm from the baseline."""

    comparison: Comparison
    differences: tuple[TaskDifference, ...]


@dataclass(frozen=True)
class OverallDifference:
    """One arm against the baseline over all tasks on which the two share seeds.

    ``difference`` is the mean over tasks of the mean over seeds; None if the metrics of the tasks
    have different scales. ``p_value`` belongs to the sign-flip test over all (task, seed) pairs,
    ``p_adjusted`` is corrected by Holm for the ``family`` arms that are compared.
    ``interquartile_mean`` and ``improvement`` follow Agarwal et al. 2021.
    """

    arm: str
    tasks: int
    pairs: int
    seeds: int
    """The smallest number of shared seeds on any task."""
    difference: Interval | None
    p_value: float | None
    p_adjusted: float | None
    interquartile_mean: Aggregate | None
    improvement: Aggregate | None
    by_seed: Summary | None = None
    """Of the mean over tasks of each seed that all tasks share."""
    family: int = 1
    seeds_needed: int | None = None
    """Seeds on every task for 80% power to detect a mean as large as that of ``by_seed``."""

    @property
    def outcome(self) -> str:
        """ "open" with fewer than 6 seeds on a task or with too few pairs, else as for a task."""
        if self.seeds < MIN_SEEDS or self.p_adjusted is None or self.difference is None:
            return "open"
        if self.family * 2 / 2**self.pairs >= SIGNIFICANCE:
            return "open"
        if self.p_adjusted >= SIGNIFICANCE:
            return "no difference found"
        return "higher" if self.difference.mean > 0 else "lower"


@dataclass(frozen=True)
class Analysis:
    """One comparison per task, and what their runs show together."""

    folder: Path
    baseline: str
    tasks: tuple[TaskAnalysis, ...]
    overall: tuple[OverallDifference, ...]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparison of each task."""
        return tuple(task.comparison for task in self.tasks)

    @property
    def finished(self) -> bool:
        """Whether any run has finished."""
        return any(comparison.runs for comparison in self.comparisons)


def analyse(
    comparisons: Sequence[Comparison], folder: Path | None = None, baseline: str | None = None
) -> Analysis:
    """Compare every arm with the baseline on every task, as one family of tests.

    Args:
        comparisons: One comparison per task.
        folder: The folder of the report; by default that of the first comparison.
        baseline: The label of the baseline; by default the one that the comparisons name, else
            :func:`~iwlora.compare.statistics.paired_tests.default_baseline`.

    Raises:
        IwloraError: No arm has the name of the baseline, or the comparisons name different ones.
    """
    base = _choose_baseline(comparisons, baseline)
    comparisons = [replace(comparison, baseline=base) for comparison in comparisons]
    paired = [_paired_differences(comparison, base) for comparison in comparisons]
    adjusted = iter(adjust([pair for pairs in paired for pair in pairs]))
    variances: dict[tuple[int, str], tuple[float, bool]] = {}
    tasks = []
    for number, (comparison, pairs) in enumerate(zip(comparisons, paired, strict=True)):
        rows = []
        for pair in pairs:
            differences = score_differences(comparison, pair)
            predictions = paired_predictions(comparison, pair)
            variance = 0.0
            if len(differences) > 1:
                variance = variance_of_mean(differences, predictions, seed=number)
            examples = predictions is not None
            variances[number, pair.arm] = variance, examples
            interval = mean_over_tasks([differences], [variance], examples)
            rows.append(TaskDifference(next(adjusted), interval))
        tasks.append(TaskAnalysis(comparison, tuple(rows)))
    overall = [_overall(tasks, variances, arm, base) for arm in _arms(comparisons)]
    return Analysis(
        folder or comparisons[0].folder, base, tuple(tasks), tuple(_adjust_overall(overall))
    )


def _arms(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arm for comparison in comparisons for arm in comparison.arms))


def _choose_baseline(comparisons: Sequence[Comparison], requested: str | None) -> str:
    arms = _arms(comparisons)
    if requested is not None:
        if requested not in arms:
            raise unknown("baseline", requested, arms)
        return requested
    named = sorted({c.baseline for c in comparisons if c.baseline in arms if c.baseline})
    if len(named) > 1:
        raise IwloraError(
            f"the comparisons have different baselines, {' and '.join(named)}; "
            f"choose one, such as --baseline {named[0]}"
        )
    return named[0] if named else default_baseline(arms)


def _paired_differences(comparison: Comparison, base: str) -> list[PairedDifference]:
    if not comparison.runs:
        return []
    metric = comparison.metrics[0]
    baseline = comparison.values(base, metric)
    pairs = (
        paired_difference(metric, label, comparison.values(label, metric), base, baseline)
        for label in comparison.arms
        if label != base
    )
    return [pair for pair in pairs if pair]


def score_differences(comparison: Comparison, pair: PairedDifference) -> list[float]:
    """Arm minus baseline at each seed of the pair."""
    arm = comparison.values(pair.arm, pair.metric)
    base = comparison.values(pair.baseline, pair.metric)
    return [arm[seed] - base[seed] for seed in pair.seeds]


def paired_predictions(comparison: Comparison, pair: PairedDifference) -> PairedPredictions | None:
    """What both arms predicted with the shared seeds; None if it does not reproduce the scores.

    The positive class of F1 is the one that reproduces the scores.
    """
    if pair.metric not in METRICS:
        return None
    saved: list[list[list[str]]] = []
    labels: list[str] | None = None
    for label in (pair.arm, pair.baseline):
        runs = {run.result.seed: run for run in comparison.of(label)}
        by_seed = []
        for seed in pair.seeds:
            run_predictions = runs[seed].predictions()
            if run_predictions is None or (labels is not None and run_predictions[0] != labels):
                return None
            labels, predictions = run_predictions
            by_seed.append(predictions)
        saved.append(by_seed)
    names = sorted({*(labels or []), *(name for arm in saved for row in arm for name in row)})
    class_ids = {name: number for number, name in enumerate(names)}
    label_ids = np.array([class_ids[name] for name in labels or []], dtype=np.int64)
    arm, base = (
        np.array([[class_ids[name] for name in row] for row in rows], dtype=np.int64)
        for rows in saved
    )
    expected = [
        [comparison.values(label, pair.metric)[seed] for seed in pair.seeds]
        for label in (pair.arm, pair.baseline)
    ]
    equal_weights = np.ones((len(label_ids), 1))
    for positive in range(len(names)):
        recomputed = [
            weighted_scores(pair.metric, label_ids, ids, len(names), positive, equal_weights)[:, 0]
            for ids in (arm, base)
        ]
        if np.allclose(recomputed, expected, atol=1e-6):
            return PairedPredictions(pair.metric, label_ids, arm, base, len(names), positive)
    return None


def _overall(
    tasks: Sequence[TaskAnalysis],
    variances: Mapping[tuple[int, str], tuple[float, bool]],
    arm: str,
    base: str,
) -> OverallDifference:
    finished = [task.comparison for task in tasks if task.comparison.runs]
    scored = [c for c in finished if c.values(arm, c.metrics[0])]
    scores = [[*c.values(arm, c.metrics[0]).values()] for c in scored]
    one_scale = len({display_scale(c.metrics[0]) for c in scored}) == 1
    middle = interquartile_mean(scores) if one_scale else None
    shared = [
        (number, task.comparison, row.paired)
        for number, task in enumerate(tasks)
        for row in task.differences
        if row.paired.arm == arm
    ]
    if not shared:
        return OverallDifference(arm, len(scores), 0, 0, None, None, None, middle, None)
    by_task = [score_differences(comparison, pair) for _, comparison, pair in shared]
    spread = [variances[number, arm] for number, _, _ in shared]
    difference = mean_over_tasks(
        by_task, [variance for variance, _ in spread], all(examples for _, examples in spread)
    )
    p_value = sign_flip_p([difference for task in by_task for difference in task])
    return OverallDifference(
        arm,
        len(shared),
        sum(map(len, by_task)),
        min(map(len, by_task)),
        difference if len({display_scale(pair.metric) for _, _, pair in shared}) == 1 else None,
        p_value,
        p_value,
        middle,
        probability_of_improvement(
            [[*comparison.values(arm, pair.metric).values()] for _, comparison, pair in shared],
            [[*comparison.values(base, pair.metric).values()] for _, comparison, pair in shared],
        ),
        _summary_by_seed(
            [
                dict(zip(pair.seeds, differences, strict=True))
                for (*_, pair), differences in zip(shared, by_task, strict=True)
            ]
        ),
    )


def _adjust_overall(overall: Sequence[OverallDifference]) -> list[OverallDifference]:
    """The same differences with Holm's correction for the number of tested arms."""
    tested = {row.arm: row.p_value for row in overall if row.p_value is not None}
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    return [
        replace(
            row,
            p_adjusted=adjusted.get(row.arm),
            family=len(tested),
            seeds_needed=seeds_needed(row.by_seed, len(tested)) if row.by_seed else None,
        )
        for row in overall
    ]


def _summary_by_seed(tasks: Sequence[Mapping[int, float]]) -> Summary | None:
    """Of the means over tasks of the seeds that all tasks share."""
    shared = [seed for seed in tasks[0] if all(seed in task for task in tasks)]
    means = [sum(task[seed] for task in tasks) / len(tasks) for seed in shared]
    return summarise(means) if means else None
