"""What runs take: their time, and that times their cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from iwlora.results.durations import format_duration
from iwlora.results.run.folder import Run


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
    known = [number for number in cores if isinstance(number, int)]
    seconds = [run.result.total_seconds or mean[run.result.label] for run in runs]
    hours = None
    if len(known) == len(runs):
        hours = sum(number * each for number, each in zip(known, seconds, strict=True)) / 3600
    return Computing(sum(seconds), hours, gpu)


def _mean_seconds(runs: Sequence[Run]) -> dict[str, float]:
    """{arm: mean over its runs}, over all runs for an arm without times; empty without any."""
    known = [(run.result.label, run.result.total_seconds) for run in runs]
    timed = [(label, seconds) for label, seconds in known if seconds is not None]
    by_arm = {
        arm: [seconds for label, seconds in timed if label == arm] for arm, _ in known if timed
    }
    return {arm: fmean(own or [s for _, s in timed]) for arm, own in by_arm.items()}
