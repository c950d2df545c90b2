"""Records meet statistics: differences on each task, and over all tasks, corrected together."""

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
    Predictions,
    combined,
    interquartile_mean,
    probability_of_improvement,
    scores,
    variance,
)
from iwlora.compare.statistics.paired_tests import (
    PairedDifference,
    Summary,
    adjust,
    baseline_of,
    holm,
    paired_difference,
    seeds_needed,
    sign_flip_p,
    summarise,
)
from iwlora.errors import IwloraError, unknown
from iwlora.results.comparison import Comparison


@dataclass(frozen=True)
class Compared:
    """One arm against the baseline on one task.

    ``both`` is the interval that counts seeds and examples.
    """

    pair: PairedDifference
    both: Interval


@dataclass(frozen=True)
class Overall:
    """One arm over all tasks on which it shares seeds with the baseline.

    ``difference`` is the mean over tasks of the mean over seeds, ``p_value`` that of the
    sign-flip test over all (task, seed), ``p_adjusted`` by Holm among the arms.
    ``interquartile_mean`` and ``improvement`` are those of Agarwal et al. 2021.
    """

    arm: str
    tasks: int
    pairs: int
    seeds: int
    """The fewest that it shares with the baseline on any task."""
    difference: Interval | None
    p_value: float | None
    p_adjusted: float | None
    interquartile_mean: Aggregate | None
    improvement: Aggregate | None
    by_seed: Summary | None = None
    """The mean over tasks of each seed that all of them share."""
    family: int = 1
    """How many arms are compared with the baseline."""
    seeds_needed: int | None = None
    """On every task, to find a mean as large as that of ``by_seed`` 4 times in 5."""


@dataclass(frozen=True)
class Analysis:
    """Comparisons, one for each task, and what their runs show together."""

    folder: Path
    parts: tuple[Comparison, ...]
    baseline: str
    compared: tuple[tuple[Compared, ...], ...]
    overall: tuple[Overall, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of all parts."""
        return tuple(dict.fromkeys(arm for part in self.parts for arm in part.arms))


def analyse(
    parts: Sequence[Comparison], folder: Path | None = None, baseline: str | None = None
) -> Analysis:
    """Compare every arm with the baseline on every task, as one family of comparisons.

    The baseline is the one that is given, else the one that the comparisons name, else that of
    ``stats.baseline_of``. Raises ``IwloraError`` for a name that no arm has, and where the
    comparisons name several.
    """
    base = _baseline(parts, baseline)
    parts = [replace(part, baseline=base) for part in parts]
    arms = tuple(dict.fromkeys(arm for part in parts for arm in part.arms))
    found = [_pairs(part, base) for part in parts]
    adjusted = iter(adjust([pair for pairs in found for pair in pairs]))
    variances: dict[tuple[int, str], tuple[float, bool]] = {}
    compared = []
    for number, (part, pairs) in enumerate(zip(parts, found, strict=True)):
        rows = []
        for pair in pairs:
            d = score_differences(part, pair)
            told = predictions(part, pair)
            spread = variance(d, told, seed=number) if len(d) > 1 else 0.0
            variances[number, pair.arm] = spread, told is not None
            both = combined([d], [spread], told is not None)
            rows.append(Compared(next(adjusted), both))
        compared.append(tuple(rows))
    overall = [_overall(parts, compared, variances, arm, base) for arm in arms]
    tested = [one for one in overall if one.p_value is not None]
    corrected = dict(
        zip(
            (one.arm for one in tested),
            holm([one.p_value for one in tested if one.p_value is not None]),
            strict=True,
        )
    )
    return Analysis(
        folder or parts[0].folder,
        tuple(parts),
        base,
        tuple(compared),
        tuple(
            replace(
                one,
                p_adjusted=corrected.get(one.arm),
                family=len(tested),
                seeds_needed=seeds_needed(one.by_seed, len(tested)) if one.by_seed else None,
            )
            for one in overall
        ),
    )


def _baseline(parts: Sequence[Comparison], given: str | None) -> str:
    arms = tuple(dict.fromkeys(arm for part in parts for arm in part.arms))
    if given is not None:
        if given not in arms:
            raise unknown("baseline", given, arms)
        return given
    named = sorted({part.baseline for part in parts if part.baseline in arms if part.baseline})
    if len(named) > 1:
        raise IwloraError(
            f"the comparisons have different baselines, {' and '.join(named)}; "
            f"choose one, such as --baseline {named[0]}"
        )
    return named[0] if named else baseline_of(arms)


def _pairs(part: Comparison, base: str) -> list[PairedDifference]:
    if not part.runs:
        return []
    metric = part.metrics[0]
    baseline = part.values(base, metric)
    pairs = (
        paired_difference(metric, label, part.values(label, metric), base, baseline)
        for label in part.arms
        if label != base
    )
    return [pair for pair in pairs if pair]


def score_differences(part: Comparison, pair: PairedDifference) -> list[float]:
    """Arm minus baseline at each seed of the pair."""
    arm, base = part.values(pair.arm, pair.metric), part.values(pair.baseline, pair.metric)
    return [arm[seed] - base[seed] for seed in pair.seeds]


def predictions(part: Comparison, pair: PairedDifference) -> Predictions | None:
    """What both arms predicted with the shared seeds; None where it does not give the scores.

    The class that F1 counts is the one that gives the scores of the runs.
    """
    if pair.metric not in METRICS:
        return None
    told: list[list[list[str]]] = []
    truth: list[str] | None = None
    for label in (pair.arm, pair.baseline):
        runs = {run.result.seed: run for run in part.of(label)}
        rows = []
        for seed in pair.seeds:
            kept = runs[seed].predictions()
            if kept is None or (truth is not None and kept[0] != truth):
                return None
            truth = kept[0]
            rows.append(kept[1])
        told.append(rows)
    names = sorted({*(truth or []), *(name for arm in told for row in arm for name in row)})
    index = {name: number for number, name in enumerate(names)}
    labels = np.array([index[name] for name in truth or []], dtype=np.int64)
    arm, base = (
        np.array([[index[n] for n in row] for row in rows], dtype=np.int64) for rows in told
    )
    expected = [
        [part.values(label, pair.metric)[seed] for seed in pair.seeds]
        for label in (pair.arm, pair.baseline)
    ]
    whole = np.ones((len(labels), 1))
    for positive in range(len(names)):
        again = [
            scores(pair.metric, labels, told, len(names), positive, whole)[:, 0]
            for told in (arm, base)
        ]
        if np.allclose(again, expected, atol=1e-6):
            return Predictions(pair.metric, labels, arm, base, len(names), positive)
    return None


def _overall(
    parts: Sequence[Comparison],
    compared: Sequence[Sequence[Compared]],
    variances: dict[tuple[int, str], tuple[float, bool]],
    arm: str,
    base: str,
) -> Overall:
    everywhere = [(p, p.metrics[0]) for p in parts if p.runs and p.values(arm, p.metrics[0])]
    values = [[*part.values(arm, metric).values()] for part, metric in everywhere]
    alike = len({display_scale(metric) for _, metric in everywhere}) == 1
    middle = interquartile_mean(values) if values and alike else None
    mine = [
        (number, part, one.pair)
        for number, (part, row) in enumerate(zip(parts, compared, strict=True))
        for one in row
        if one.pair.arm == arm
    ]
    if not mine:
        return Overall(arm, len(values), 0, 0, None, None, None, middle, None)
    d = [score_differences(part, pair) for _, part, pair in mine]
    found = [variances[number, arm] for number, _, _ in mine]
    difference = combined(d, [spread for spread, _ in found], all(kept for _, kept in found))
    return Overall(
        arm,
        len(mine),
        sum(map(len, d)),
        min(map(len, d)),
        difference if len({display_scale(pair.metric) for _, _, pair in mine}) == 1 else None,
        p := sign_flip_p([one for task in d for one in task]),
        p,
        middle,
        probability_of_improvement(
            [[*part.values(arm, pair.metric).values()] for _, part, pair in mine],
            [[*part.values(base, pair.metric).values()] for _, part, pair in mine],
        ),
        _by_seed(
            [
                dict(zip(pair.seeds, row, strict=True))
                for (*_, pair), row in zip(mine, d, strict=True)
            ]
        ),
    )


def _by_seed(tasks: Sequence[Mapping[int, float]]) -> Summary | None:
    """The means over tasks of the seeds that all of them have."""
    shared = [seed for seed in tasks[0] if all(seed in task for task in tasks)]
    means = [sum(task[seed] for task in tasks) / len(tasks) for seed in shared]
    return summarise(means) if means else None
