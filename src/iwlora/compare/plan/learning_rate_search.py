"""The search for each arm's learning rate, on held-out training data, at the same cost for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from iwlora.results.comparison.record import LearningRateChoice, Trial, distinct
from iwlora.results.layout import learning_rate_text
from iwlora.results.metric_direction import oriented

LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]


class SearchSettings(BaseModel):
    """The ``search:`` part of a comparison's recipe.

    Every arm tries each learning rate of its grid with each of ``seeds``. A trial is scored on a
    part ``holdout`` of the training rows, on which it is not trained, and never on the data that
    are reported. ``lr`` is the grid of all arms; an arm may have its own with as many values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: list[LearningRate]
    """The grid. An arm is marked if its best learning rate is the smallest or the largest."""
    seeds: Annotated[list[Seed], AfterValidator(distinct), Field(min_length=1)]
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds of training and measuring, after which no trial of an arm starts. None: no limit."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The part of the training rows that a trial is scored on, the same rows for all arms."""

    @field_validator("lr")
    @classmethod
    def _at_least_three(cls, value: list[float]) -> list[float]:
        if len(set(value)) < 3:
            raise ValueError(
                "at least three different learning rates are needed: the best may not be at an end"
            )
        return sorted(set(value))


def trial_order(learning_rates: Sequence[float], seeds: Sequence[int]) -> list[tuple[float, int]]:
    """(learning rate, seed) of the trials: seed by seed, from the middle of the grid outwards.

    A search that runs out of time has then tried the middle.

    Example:
        >>> trial_order([1e-4, 1e-3, 1e-2], [7])
        [(0.001, 7), (0.01, 7), (0.0001, 7)]
    """
    middle = (len(learning_rates) - 1) / 2
    outwards = sorted(range(len(learning_rates)), key=lambda i: (abs(i - middle), -i))
    return [(learning_rates[i], seed) for seed in seeds for i in outwards]


def choose_learning_rate(
    label: str, trials: Iterable[Trial], metric: str | None = None
) -> LearningRateChoice:
    """Choose the learning rate with the best mean score; of equals, that with the lowest loss.

    Scores and losses are averaged over the seeds of the trials that are done. A learning rate that
    failed or diverged with any seed is out. The arm is marked (``inside`` is False, ``remark``
    says why) if its best learning rate is the smallest or the largest that was tried, if a trial
    did not start, or if no trial is done.

    Args:
        label: The arm.
        trials: All of its trials.
        metric: The name of the score, which says whether a higher or a lower one is better; None:
            a higher one.

    Example:
        >>> scores = ((1e-4, 0.6), (1e-3, 0.8), (1e-2, 0.7))
        >>> trials = [Trial(lr=lr, seed=7, state="done", score=score) for lr, score in scores]
        >>> choose_learning_rate("lora", trials).lr
        0.001
    """
    ordered = sorted(trials, key=lambda trial: (trial.lr, trial.seed))
    failed = {trial.lr for trial in ordered if trial.state in ("failed", "diverged")}
    ranks: dict[float, tuple[float, float, float]] = {}
    for lr in sorted({trial.lr for trial in ordered if trial.state == "done"} - failed):
        done = [trial for trial in ordered if trial.lr == lr]
        score = fmean(trial.score for trial in done if trial.score is not None)
        loss = fmean(math.inf if trial.loss is None else trial.loss for trial in done)
        ranks[lr] = (oriented(metric or "", score), -loss, -lr)
    best = max(ranks, key=ranks.__getitem__, default=None)
    tried = sorted({trial.lr for trial in ordered if trial.state != "not begun"})
    not_begun = sum(trial.state == "not begun" for trial in ordered)
    remark = None
    if best is None:
        remark = f"{label}: no trial of its search finished"
    elif best in (tried[0], tried[-1]):
        end = "smallest" if best == tried[0] else "largest"
        remark = (
            f"{label}: its best learning rate {learning_rate_text(best)} is the {end} that was "
            "tried, so the best may lie outside; widen search.lr"
        )
    elif not_begun:
        remark = (
            f"{label}: {not_begun} of {len(ordered)} trials of its search did not start, because "
            "search.max_seconds was reached; raise it"
        )
    return LearningRateChoice(
        lr=best, inside=remark is None, remark=remark, metric=metric, trials=ordered
    )
