"""A comparison: which runs there should be, what its search chose, and what has finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from iwlora.results.formats import VERSIONS, Document, StoredModel
from iwlora.results.run import Count, Label, Name, Run, RunResult


def distinct(items: list[Any]) -> list[Any]:
    """The items; ``ValueError`` if one is listed twice."""
    if len(set(items)) < len(items):
        raise ValueError("each may be listed only once")
    return items


class ComparisonRecord(Document):
    """``comparison.yaml``: which runs there should be, and the recipe that they came from.

    Args:
        model: The backbone of all runs.
        task: The title of their task.
        methods: The labels of the arms.
        seeds: The seeds of each arm.
        searched: Whether each arm searched its learning rate; None if that is not known.
        baseline: The label of the arm that the others are compared with.
        recipe: The settings as the user gave them.
        recipe_format: The version of the recipe format (see :mod:`iwlora.results.formats`) whose
            defaults the runs follow. A comparison begun by an older version keeps it: its
            remaining runs follow the same defaults, see ``Recipe.with_former_defaults``.
    """

    format_name: ClassVar[str] = "comparison"

    model: Name
    task: Name
    methods: Annotated[list[Label], AfterValidator(distinct), Field(min_length=1)]
    seeds: Annotated[list[int], AfterValidator(distinct), Field(min_length=1)]
    searched: bool | None = None
    baseline: str | None = None
    recipe_format: Count = VERSIONS["recipe"]
    recipe: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 belongs to recipes of version 1."""
        return {**fields, "recipe_format": 1} if version == 1 else fields

    @property
    def follows_former_defaults(self) -> bool:
        """Whether its runs follow the defaults of an older version."""
        return self.recipe_format < VERSIONS["recipe"]


class Crash(Document):
    """A record of ``failures.jsonl``: a run that crashed, with the last line that it printed."""

    format_name: ClassVar[str] = "failures"

    run: str
    label: str
    seed: int
    trial: bool
    exit: int
    error: str
    tried_again: bool

    def append(self, path: Path) -> None:
        """Add the record to a file."""
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.stored()) + "\n")

    def __str__(self) -> str:
        ending = "was tried again" if self.tried_again else "is not counted"
        return f"{self.run} crashed (exit {self.exit}) and {ending}"


State = Literal["waiting", "running", "done", "failed", "diverged", "not begun"]
"""How a run of a comparison stands."""


class Trial(StoredModel):
    """One trial: its learning rate and seed, its scores on the held-out rows, its cost.

    ``state`` is "not begun" if the search ran out of time before this trial.
    """

    lr: float
    seed: int
    state: State
    score: float | None = None
    loss: float | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, lr: float, seed: int, result: RunResult | None, state: State) -> Trial:
        """The trial that has this result; one whose score is not a finite number has failed."""
        if result is None:
            return cls(lr=lr, seed=seed, state=state)
        seconds = (result.train_seconds or 0.0) + (result.measure_seconds or 0.0)
        if result.score is None:
            return cls(lr=lr, seed=seed, state="failed", seconds=seconds)
        loss = result.metrics.get("loss")
        return cls(lr=lr, seed=seed, state="done", score=result.score, loss=loss, seconds=seconds)


class LearningRateChoice(StoredModel):
    """The learning rate that the search of an arm chose; ``remark`` says why it is uncertain.

    ``lr`` is None if no trial finished. ``inside`` is True if the best learning rate is neither
    the smallest nor the largest that was tried, and no trial is missing.
    """

    lr: float | None
    inside: bool
    remark: str | None
    metric: Name | None
    trials: list[Trial]


class Search(Document):
    """``search.json`` of a comparison: {label: the learning rate chosen for this arm}."""

    format_name: ClassVar[str] = "search"

    arms: dict[Label, LearningRateChoice] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had the arms at the top."""
        return {"arms": fields} if version == 1 else fields


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds on one model and task: the finished runs, and what is missing and why.

    ``missing`` holds (label, seed, status) of each planned run that has no score, ``remarks``
    what a reader must know: arms whose search is weak, runs that crashed and were tried again.
    ``searched`` is None where how the learning rates were found is not known, ``baseline`` where
    none was named.
    """

    folder: Path
    model: str
    task: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    missing: tuple[tuple[str, int, str], ...]
    searched: bool | None = None
    search: Mapping[str, LearningRateChoice] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    baseline: str | None = None

    @property
    def title(self) -> str:
        """The task, and the model where it is known."""
        return f"{self.task} with {self.model}" if self.model else self.task

    def of(self, label: str) -> tuple[Run, ...]:
        """The finished runs of one arm, in the order of the seeds."""
        return tuple(run for run in self.runs if run.result.label == label)

    def values(self, label: str, metric: str) -> dict[int, float]:
        """{seed: value} of a metric in one arm; a seed without a finite value is absent."""
        results = [run.result for run in self.of(label)]
        return {r.seed: r.metrics[metric] for r in results if metric in r.metrics}

    def scores(self, label: str) -> dict[int, float]:
        """{seed: value of the primary metric} in one arm; empty if no run has finished."""
        return self.values(label, self.metrics[0]) if self.runs else {}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that any run reports, the primary one first."""
        names = {run.result.primary_metric: None for run in self.runs}
        names |= {name: None for run in self.runs for name in run.result.metrics}
        return tuple(names)
