"""The search for each arm's learning rate, on held-out training data, at the same cost for all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from iwlora.results.writing import write_text
from iwlora.training.recipe import Recipe

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Search(BaseModel):
    """The ``search:`` part of a comparison's recipe.

    Every arm is tried at each learning rate of its grid with each of ``seeds``, on a part
    ``holdout`` of the training data that training does not see, and never on the data that are
    reported. ``lr`` is the grid of all arms; an arm may have one of its own, of as many rates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: list[Rate]
    """The grid; its best rate must not be at an end, else the arm is marked."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32, strict=True)]] = Field(min_length=1)
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of training and measuring, for each arm: no trial begins after them. None: no limit."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The part of the training rows that a trial is scored on, the same for all arms."""

    @field_validator("lr")
    @classmethod
    def _a_grid(cls, value: list[float]) -> list[float]:
        if len(set(value)) < 3:
            raise ValueError(
                "at least three different learning rates are needed: the best may not be at an end"
            )
        return sorted(set(value))

    @model_validator(mode="after")
    def _distinct_seeds(self) -> Search:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"search.seeds={self.seeds}: each may be listed only once")
        return self


@dataclass(frozen=True)
class Trial:
    """One trial: its learning rate and seed, what it scored on the held-out rows, its cost."""

    lr: float
    seed: int
    state: str
    """"done", "failed", "diverged", or "not begun" for want of seconds."""
    score: float | None = None
    loss: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Choice:
    """The learning rate of an arm, and whether the search can be relied on."""

    lr: float | None
    inside: bool
    remark: str | None
    metric: str | None
    trials: tuple[Trial, ...]


def trial_recipe(recipe: Recipe, lr: float, seed: int, holdout: float) -> Recipe:
    """The run that tries ``lr``: scored on held-out training rows instead of the reported ones."""
    return with_rate(recipe, lr).model_copy(
        update={
            "train": recipe.train.model_copy(update={"lr": lr, "seed": seed}),
            "task": recipe.task.model_copy(update={"holdout": holdout}),
        }
    )


def with_rate(recipe: Recipe, lr: float) -> Recipe:
    """The same run at another learning rate."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"lr": lr})})


def trial_of(lr: float, seed: int, result: dict[str, Any] | None, state: str) -> Trial:
    """What a trial's ``result.json`` says; one whose score is no number has failed."""
    if result is None:
        return Trial(lr, seed, state)
    score = result["metrics"].get(result["primary_metric"])
    loss = result["metrics"].get("loss")
    seconds = result["train_seconds"] + result["measure_seconds"]
    if score is None or not math.isfinite(score):
        return Trial(lr, seed, "failed", None, None, seconds)
    finite = loss if loss is not None and math.isfinite(loss) else None
    return Trial(lr, seed, "done", score, finite, seconds)


def order(grid: Sequence[float], seeds: Sequence[int]) -> list[tuple[float, int]]:
    """(learning rate, seed) of the trials: seed by seed, from the middle of the grid outwards.

    A search that runs out of seconds then knows the middle.

    >>> order([1e-4, 1e-3, 1e-2], [7])
    [(0.001, 7), (0.01, 7), (0.0001, 7)]
    """
    middle = (len(grid) - 1) / 2
    outwards = sorted(range(len(grid)), key=lambda i: (abs(i - middle), -i))
    return [(grid[i], seed) for seed in seeds for i in outwards]


def choose(label: str, trials: Iterable[Trial], metric: str | None = None) -> Choice:
    """The rate with the highest mean score over its seeds; of equals that with the lowest loss.

    Rates are compared over the trials that are done; one that failed or diverged with any seed is
    out. The arm is marked (``inside`` is False, ``remark`` says why) when the best rate is the
    smallest or the largest that was tried, when a trial was not begun, and when none was done.

    >>> scores = ((1e-4, 0.6), (1e-3, 0.8), (1e-2, 0.7))
    >>> choose("lora", [Trial(lr, 7, "done", score, 0.5, 1.0) for lr, score in scores]).lr
    0.001
    """
    found = tuple(sorted(trials, key=lambda trial: (trial.lr, trial.seed)))
    failed = {trial.lr for trial in found if trial.state in ("failed", "diverged")}
    scored: dict[float, tuple[float, float, float]] = {}
    for lr in sorted({trial.lr for trial in found if trial.state == "done"} - failed):
        done = [trial for trial in found if trial.lr == lr and trial.score is not None]
        loss = _mean([math.inf if trial.loss is None else trial.loss for trial in done])
        scored[lr] = (_mean([trial.score or 0.0 for trial in done]), -loss, -lr)
    if not scored:
        return Choice(None, False, f"{label}: no trial of its search finished", metric, found)
    best = max(scored, key=scored.__getitem__)
    tried = sorted({trial.lr for trial in found if trial.state != "not begun"})
    waiting = sum(trial.state == "not begun" for trial in found)
    remark = None
    if best in (tried[0], tried[-1]):
        end = "smallest" if best == tried[0] else "largest"
        remark = (
            f"{label}: its best learning rate {best:g} is the {end} that was tried, so the best "
            "may lie outside; widen search.lr"
        )
    elif waiting:
        remark = (
            f"{label}: {waiting} of {len(found)} trials of its search were not begun, for want "
            "of seconds; raise search.max_seconds"
        )
    return Choice(best, remark is None, remark, metric, found)


def save(path: Path, choices: dict[str, Choice]) -> None:
    """Write the choices of all arms as JSON, atomically."""
    write_text(path, json.dumps({k: asdict(v) for k, v in choices.items()}, indent=1) + "\n")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
