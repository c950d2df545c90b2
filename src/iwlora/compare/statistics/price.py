"""The price of sequential verdicts: what they cost, and what a fixed number of seeds would have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.analysis import TaskDifference
from iwlora.compare.statistics.paired_tests import Summary, seeds_needed
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.durations import format_duration
from iwlora.results.run import Run


@dataclass(frozen=True)
class Computing:
    """What runs take: their seconds, and hours times cores, where a GPU counts as one core.

    >>> str(Computing(5400.0, 3.0, gpu=False).times(2))
    '3 h 00 min of training (6.00 core-hours)'
    """

    seconds: float
    core_hours: float | None
    gpu: bool

    def times(self, factor: float) -> Computing:
        """What so many times the runs take."""
        hours = None if self.core_hours is None else factor * self.core_hours
        return Computing(factor * self.seconds, hours, self.gpu)

    def __str__(self) -> str:
        text = f"{format_duration(self.seconds)} of training"
        if self.core_hours is None:
            return text
        return f"{text} ({self.core_hours:,.2f} {self.unit})"

    @property
    def unit(self) -> str:
        """Of ``core_hours``."""
        return "GPU-hours" if self.gpu else "core-hours"


def computing(runs: Sequence[Run], among: Sequence[Run] | None = None) -> Computing | None:
    """What some runs took to measure and train; a resumed one as long as the mean of its arm.

    The means are over ``among``, which contains the runs; without it, over the runs themselves.
    None without any times; the core-hours are None where the cores of a run are not known.
    """
    mean = _mean_seconds(runs if among is None else among)
    if not mean:
        return None
    environments = [run.environment() for run in runs]
    gpu = any(environment.get("gpu") for environment in environments)
    cores = [1 if gpu else environment.get("cores") for environment in environments]
    seconds = [run.result.total_seconds or mean[run.result.label] for run in runs]
    hours = None
    if all(isinstance(number, int) for number in cores):
        hours = float(np.dot(np.array(cores, dtype=float), seconds)) / 3600
    return Computing(sum(seconds), hours, gpu)


def _mean_seconds(runs: Sequence[Run]) -> dict[str, float]:
    """{arm: mean over its runs}, over all runs for an arm without times; empty without any."""
    known = [(run.result.label, run.result.total_seconds) for run in runs]
    timed = [(label, seconds) for label, seconds in known if seconds is not None]
    by_arm = {
        arm: [seconds for label, seconds in timed if label == arm] for arm, _ in known if timed
    }
    return {arm: fmean(own or [s for _, s in timed]) for arm, own in by_arm.items()}


@dataclass(frozen=True)
class ArmPrice:
    """The draws of an arm, what they took, and the seeds that it would have with a fixed number.

    The baseline would have as many as the arm with the most.
    """

    arm: str
    draws: int
    seconds: float
    core_hours: float | None
    fixed_seeds: int | None


@dataclass(frozen=True)
class Price:
    """What the verdicts of a comparison cost, and what the plain way would have.

    ``seconds`` are those of training and measuring; ``core_hours`` multiplies each run's by its
    cores, and counts a GPU as one core (``gpu``). The plain way has a fixed number of seeds,
    scored on ``fixed_split``, the official one if the verdicts rest on study rows. What is not
    known is None.
    """

    arms: tuple[ArmPrice, ...]
    runs: int
    seconds: float
    core_hours: float | None
    gpu: bool
    fixed_split: str | None
    fixed_runs: int | None
    fixed_seconds: float | None
    fixed_core_hours: float | None

    @property
    def spent(self) -> Computing:
        """What all runs took."""
        return Computing(self.seconds, self.core_hours, self.gpu)

    @property
    def fixed(self) -> Computing | None:
        """What the plain way would take."""
        if self.fixed_seconds is None:
            return None
        return Computing(self.fixed_seconds, self.fixed_core_hours, self.gpu)


def fixed_seeds(rule: StoppingRule, sd: float, arms: int = 1) -> int | None:
    """The fixed number of seeds with which a difference that matters is found as often.

    The smallest n with P(|t(n - 1, √n · difference / sd)| > t(1 - error / (2 · arms))) ≥ power: the
    paired t test of a noncentral t, after Holm's correction before any arm is decided.

    Args:
        rule: Its ``difference``, ``error`` and ``power`` are asked for.
        sd: The standard deviation of the paired differences between draws, in the same unit.
        arms: How many arms are compared with the baseline.

    Returns:
        None if it is above 10,000.

    Example:
        >>> rule = StoppingRule(difference=1.0)
        >>> fixed_seeds(rule, sd=1.9), fixed_seeds(rule, sd=0.9)
        (31, 9)
    """
    return seeds_needed(Summary(2, rule.difference, sd, None, None), arms, rule.power, rule.error)


def price_of(comparison: Comparison, rows: Sequence[TaskDifference]) -> Price | None:
    """The price of a comparison with a rule ``stop``; None without times.

    A run that was resumed has the mean time of its arm.

    Args:
        comparison: The comparison.
        rows: Its arms.
    """
    rule, runs = comparison.stop, comparison.runs
    spent = computing(runs)
    if rule is None or spent is None or not rows:
        return None
    metric, split = _official(comparison)
    seeds = _fixed_seeds_of_arms(comparison, rows, rule, metric)
    draws = Counter(run.result.label for run in runs)
    costs = {arm: cost for arm in draws if (cost := computing(comparison.of(arm), runs))}
    arms = tuple(
        ArmPrice(arm, draws[arm], cost.seconds, cost.core_hours, seeds.get(arm))
        for arm, cost in costs.items()
    )
    fixed = [costs[arm].times(n / draws[arm]) for arm, n in seeds.items() if n is not None]
    hours = [cost.core_hours for cost in fixed if cost.core_hours is not None]
    complete = len(fixed) == len(seeds)
    return Price(
        arms,
        len(runs),
        spent.seconds,
        spent.core_hours,
        spent.gpu,
        split,
        sum(n for n in seeds.values() if n is not None) if complete else None,
        sum(cost.seconds for cost in fixed) if complete else None,
        sum(hours) if len(hours) == len(seeds) else None,
    )


def _fixed_seeds_of_arms(
    comparison: Comparison, rows: Sequence[TaskDifference], rule: StoppingRule, metric: str
) -> dict[str, int | None]:
    """Of each arm by its own spread; of the baseline, the most of all arms."""
    seeds: dict[str, int | None] = {rows[0].baseline: None}
    for row in rows:
        sd = _spread(comparison, row, metric)
        seeds[row.arm] = None if sd is None else fixed_seeds(rule, sd, len(rows))
    needed = [n for n in seeds.values() if n is not None]
    if len(needed) == len(rows):
        seeds[rows[0].baseline] = max(needed)
    return seeds


def _official(comparison: Comparison) -> tuple[str, str | None]:
    """(the metric of the official rows, their split); the primary metric without study rows.

    Beside study rows the official split has the metric with its own name, such as
    ``accuracy_validation``.
    """
    primary, split = comparison.metrics[0], comparison.runs[0].result.evaluated_on
    beside = [name for name in comparison.metrics if name.startswith(f"{primary}_")]
    if not beside or split is None or split.startswith(("validation", "test")):
        return primary, split
    return beside[0], beside[0].removeprefix(f"{primary}_")


def _spread(comparison: Comparison, row: TaskDifference, metric: str) -> float | None:
    """The standard deviation of an arm's paired differences in a metric, as printed."""
    arm, base = (comparison.values(label, metric) for label in (row.arm, row.baseline))
    values = [arm[seed] - base[seed] for seed in row.differences if seed in arm and seed in base]
    return stdev(values) * display_scale(metric) if len(values) > 1 else None
