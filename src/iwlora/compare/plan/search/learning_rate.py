"""What the search for each arm's learning rate is given, and what it chooses from its trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from iwlora.compare.statistics.learning_rate.rules import DEFAULT_RULE, find_rule
from iwlora.inputs.limits import Seed
from iwlora.results.comparison.record import LearningRateChoice, Trial, distinct
from iwlora.results.layout import learning_rate_text, options_text

LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


DRAWS = 3
"""The number of ``search.seeds`` by default: the fewest of which the last can be saved."""


class SearchSettings(BaseModel):
    """The ``search:`` part of a comparison's recipe.

    A trial is scored on a part ``holdout`` of the training rows, on which it is not trained, and
    never on the data that are reported. All arms may use the same number of training steps.
    ``lr`` is the grid of all arms; an arm may have its own with as many values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: list[LearningRate]
    """The grid. An arm is marked if its best learning rate is the smallest or the largest."""
    seeds: Annotated[list[Seed], AfterValidator(distinct), Field(min_length=1)]
    """The draws of the trials, in each of which all learning rates and arms have the same rows,
    order and start. A recipe may leave them out: then they are three that no run has."""
    rule: str = DEFAULT_RULE
    """What chooses the learning rate: loss-curve, a smooth curve of the held-out loss; best-score,
    the held-out score, as in earlier versions."""
    widen: Annotated[int, Field(ge=0, le=20, strict=True)] = 2
    """How many learning rates an arm may add to its grid, while the best is at the edge."""
    max_steps: Annotated[int, Field(gt=0, strict=True)] | None = None
    """The most optimizer steps that the trials of an arm take together, the same for all arms.
    None: as many as the grid with ``widen`` more learning rates takes in all draws."""
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds of training and measuring, after which no trial of an arm starts. None: no limit."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The part of the training rows that a trial is scored on, the same rows for all arms."""
    options: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Options of methods that are searched together with the learning rate, below the same limit of
    steps: {option: its values}."""

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        find_rule(value)
        return value

    @model_validator(mode="after")
    def _options_need_losses(self) -> Self:
        if self.options and not find_rule(self.rule).adaptive:
            raise ValueError(f"rule={self.rule} searches no options; use rule={DEFAULT_RULE}")
        return self

    @field_validator("lr")
    @classmethod
    def _at_least_three(cls, value: list[float]) -> list[float]:
        if len(set(value)) < 3:
            raise ValueError(
                "at least three different learning rates are needed: the best may not be at an end"
            )
        return sorted(set(value))

    @property
    def most_trials(self) -> int:
        """The most trials of an arm, without the limits ``max_steps`` and ``max_seconds``."""
        added = self.widen if find_rule(self.rule).adaptive else 0
        return (len(self.lr) + added) * len(self.seeds)


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
    label: str,
    trials: Iterable[Trial],
    metric: str | None = None,
    rule: str = DEFAULT_RULE,
    limit: str = "max_seconds",
) -> LearningRateChoice:
    """Choose the learning rate of an arm by a rule, and say what makes the choice uncertain.

    The arm is marked (``inside`` is False, ``remark`` says why) if its best learning rate is the
    smallest or the largest that was tried, if a trial did not start, or if no trial is done.

    Args:
        label: The arm.
        trials: All of its trials.
        metric: The name of the score, which says whether a higher or a lower one is better; None:
            a higher one.
        rule: Its name.
        limit: The setting because of which trials did not start.

    Example:
        >>> losses = ((1e-4, 0.6), (1e-3, 0.4), (1e-2, 0.6))
        >>> trials = [Trial(lr=lr, seed=7, state="done", score=0.5, loss=y) for lr, y in losses]
        >>> choose_learning_rate("lora", trials).lr
        0.001
    """
    ordered = sorted(trials, key=lambda trial: (trial.lr, trial.seed))
    best = find_rule(rule).choose(ordered, metric)
    not_begun = sum(trial.state == "not begun" for trial in ordered)
    tried = {trial.lr for trial in ordered if trial.state != "not begun"}
    untried = {trial.lr for trial in ordered} - tried
    remark = None
    if best is None:
        remark = f"{label}: no trial of its search finished"
    elif best.edge and not any(
        (lr > best.learning_rate) == (best.edge == "largest") for lr in untried
    ):
        end = min(tried) if best.edge == "smallest" else max(tried)
        remark = f"{label}: its best learning rate {learning_rate_text(best.learning_rate)} "
        if best.learning_rate != end:
            lowest = learning_rate_text(end)
            remark += f"lies between two tried ones; {lowest} has the lower loss and "
        remark += f"is the {best.edge} that was tried, so the best may lie outside; widen search.lr"
    elif not_begun:
        remark = (
            f"{label}: {not_begun} of {len(ordered)} trials of its search did not start, because "
            f"search.{limit} was reached; raise it"
        )
    return LearningRateChoice(
        lr=best.learning_rate if best else None,
        inside=remark is None,
        remark=remark,
        metric=metric,
        trials=ordered,
        rule=rule,
        low=best.low if best else None,
        high=best.high if best else None,
    )


def describe_choice(choice: LearningRateChoice) -> str:
    """What a search chose, its interval, and its cost beside the limit that all arms have.

    >>> trials = [Trial(lr=1e-3, seed=7, state="done", score=0.5, steps=40)]
    >>> choice = LearningRateChoice(
    ...     lr=1e-3, inside=True, remark=None, metric=None, trials=trials, max_steps=120
    ... )
    >>> describe_choice(choice)
    'learning rate 0.001 from 1 trial, 40 of at most 120 steps'
    """
    begun = sum(trial.state != "not begun" for trial in choice.trials)
    text = f"learning rate {learning_rate_text(choice.lr or 0)}"
    if choice.options:
        text = f"{options_text(choice.options)}, {text}"
    if choice.low is not None and choice.high is not None:
        low, high = learning_rate_text(choice.low), learning_rate_text(choice.high)
        text += f" (95%: {low} to {high})"
    text += f" from {begun} trial{'s' if begun != 1 else ''}"
    if choice.steps is not None and choice.max_steps is not None:
        text += f", {choice.steps:,} of at most {choice.max_steps:,} steps"
    return text
