"""The price of sequential verdicts: what they cost, and what a fixed number of seeds would have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.differences import TaskDifference
from iwlora.compare.statistics.paired_tests import Summary, seeds_needed
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.run.computing import Computing, computing


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
        seeds[row.arm] = None if sd is None else fixed_seeds(rule, sd, row.family)
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
