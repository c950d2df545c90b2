"""An arm against the baseline: its difference on one task and over all tasks, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass

from iwlora.compare.statistics import bootstrap, paired_tests
from iwlora.compare.statistics.bootstrap import Aggregate, Interval
from iwlora.compare.statistics.paired_tests import MIN_SEEDS, PairedDifference, Summary
from iwlora.compare.statistics.sequential import Verdict


@dataclass(frozen=True, kw_only=True)
class TaskDifference(PairedDifference):
    """One arm against the baseline on one task.

    ``variance`` is that of the mean difference, ``interval`` covers seeds and examples, ``rows``
    are the scored rows that were resampled, 0 without saved predictions. In a comparison with a
    rule ``stop`` there is a ``sequential`` verdict; the interval of ``summary`` and the p-values
    then hold at all looks together.
    """

    variance: float
    interval: Interval
    rows: int = 0
    sequential: Verdict | None = None

    @property
    def outcome(self) -> str:
        """As for any pair; of a sequential verdict also ``within`` the difference that matters."""
        if self.sequential is None:
            return super().outcome
        return outcome_of(self.sequential, self.summary)

    @property
    def rows_needed(self) -> int | None:
        """The scored rows with which ``interval`` would leave out zero, if the mean stays.

        None if no number of rows can do that, or if the rows are not known.
        """
        if self.interval.high is None or self.summary.sd is None or not self.rows:
            return None
        return bootstrap.rows_needed(
            self.summary.mean,
            self.variance,
            self.summary.sd**2 / self.summary.n,
            self.interval.high - self.interval.mean,
            self.rows,
        )


@dataclass(frozen=True)
class OverallDifference:
    """One arm against the baseline over all tasks on which the two share seeds.

    ``difference`` is the mean over tasks of the mean over seeds; None if the metrics of the tasks
    have different scales, or if higher is better on one task and lower on another. ``p_value``
    belongs to the sign-flip test over all (task, seed) pairs. ``p_adjusted`` is corrected by Holm
    for the ``family`` arms that are compared. ``interquartile_mean`` and ``improvement``, the
    chance of a better score, follow Agarwal et al. 2021. Where a comparison has a rule ``stop``,
    there is a ``sequential`` verdict on the mean over tasks, from the draws that all tasks share;
    ``difference`` and the p-values are then its own, and hold at all looks together.
    """

    arm: str
    tasks: int
    pairs: int = 0
    seeds: int = 0
    """The smallest number of shared seeds on any task."""
    difference: Interval | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    interquartile_mean: Aggregate | None = None
    improvement: Aggregate | None = None
    by_seed: Summary | None = None
    """Of the mean over tasks of each seed that all tasks share; None for different scales."""
    family: int = 1
    sequential: Verdict | None = None

    @property
    def outcome(self) -> str:
        """ "open" with fewer than 6 seeds on a task or with too few pairs, else as for a task."""
        if self.sequential is not None:
            return outcome_of(self.sequential, self.difference)
        if self.seeds < MIN_SEEDS or self.p_adjusted is None or self.difference is None:
            return "open"
        mean = self.difference.mean
        return paired_tests.describe_outcome(self.pairs, mean, self.p_adjusted, self.family)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds on every task for 80% power to detect a mean as large as that of ``by_seed``."""
        return paired_tests.seeds_needed(self.by_seed, self.family) if self.by_seed else None


def outcome_of(verdict: Verdict, estimate: Summary | Interval | None) -> str:
    """ "higher" or "lower" for a difference that is there, else "within" or "open"."""
    if verdict.outcome not in ("better", "worse") or estimate is None:
        return "open" if estimate is None else verdict.outcome
    return "higher" if estimate.mean > 0 else "lower"
