"""The files of a comparison: which runs there should be, what its search chose, which crashed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from iwlora.results.formats import VERSIONS, Document, StoredModel, append_record
from iwlora.results.run import Count, Label, Name, RunResult

TRAINING_DATA = ("task.max_train", "task.train", "task.mix", "task.flip_labels", "train.sampler")
"""The fields of a recipe in which arms may differ, if ``vary`` of their comparison names them."""

MAX_SEEDS = 1000
"""The largest ``stop.max_seeds``."""


def distinct(items: list[Any]) -> list[Any]:
    """The items; ``ValueError`` if one is listed twice."""
    if len(set(items)) < len(items):
        raise ValueError("each may be listed only once")
    return items


def _of_training_data(fields: list[str]) -> list[str]:
    if other := [field for field in fields if field not in TRAINING_DATA]:
        raise ValueError(f"arms may differ in {', '.join(TRAINING_DATA)}, not in {other[0]}")
    return fields


Vary = Annotated[list[str], AfterValidator(_of_training_data)]


class StoppingRule(StoredModel):
    """``stop`` of a comparison: what it promises, and when it ends.

    Draws (seeds with all that they decide) are added until each arm has a verdict.

    Args:
        difference: The smallest difference that matters, as scores are printed: 1.0 is one point.
        error: The largest probability of each kind of wrong verdict, over all arms of a task:
            "better" or "worse" where there is no difference, and "within" where it is
            ``difference`` or more.
        power: The probability of "better" or "worse" at ``difference`` that is asked for.
        max_seeds: After this many draws an arm without a verdict is open.
    """

    model_config = ConfigDict(extra="forbid")

    difference: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    max_seeds: Annotated[int, Field(ge=5, le=MAX_SEEDS)] = 40

    def promises_the_same(self, other: StoppingRule | None) -> bool:
        """Whether another rule differs in nothing but the most draws."""
        return other is not None and other.model_copy(update={"max_seeds": self.max_seeds}) == self


def _rising(draws: list[int]) -> list[int]:
    if any(later <= earlier for earlier, later in pairwise(draws)):
        raise ValueError("the numbers of draws must rise, such as [8, 16, 32, 64]")
    return draws


Looks = Annotated[
    list[Annotated[int, Field(ge=2, le=MAX_SEEDS)]], AfterValidator(_rising), Field(min_length=1)
]
"""Numbers of draws that rise."""


class RaceRule(StoredModel):
    """When a race of choices looks at its scores, and what it promises.

    Args:
        draws: The numbers of draws after which choices can be dropped; the last is the most.
        error: The largest probability that any choice is dropped by one that is not better.
    """

    model_config = ConfigDict(extra="forbid")

    draws: Looks
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def goes_on(self, other: RaceRule | None) -> bool:
        """Whether another rule has the same looks, perhaps with further ones, and promises."""
        return (
            other is not None
            and other.error == self.error
            and other.draws[: len(self.draws)] == self.draws
        )


def strictest(rules: Iterable[StoppingRule | None]) -> StoppingRule | None:
    """A rule with the smallest error and difference of some rules; None if there is none."""
    given = [rule for rule in rules if rule is not None]
    if not given:
        return None
    return StoppingRule(
        difference=min(rule.difference for rule in given),
        error=min(rule.error for rule in given),
        power=max(rule.power for rule in given),
        max_seeds=max(rule.max_seeds for rule in given),
    )


class ComparisonRecord(Document):
    """``comparison.yaml``: which runs there should be, and the recipe that they came from.

    Args:
        model: The backbone of all runs.
        task: The title of their task.
        methods: The labels of the arms.
        seeds: The seeds of each arm.
        searched: Whether each arm searched its learning rate; None if that is not known.
        search_rule: The rule by which they chose; None in comparisons of older versions.
        baseline: The label of the arm that the others are compared with.
        vary: The fields of ``TRAINING_DATA`` in which arms may differ.
        stop: When draws end, if the number of seeds is not fixed; ``seeds`` are then the most.
        race: When arms that are choices of a search of designs are dropped; ``seeds`` are then the
            most.
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
    search_rule: Name | None = None
    baseline: str | None = None
    vary: Vary = Field(default_factory=list)
    stop: StoppingRule | None = None
    race: RaceRule | None = None
    recipe_format: Count = VERSIONS["recipe"]
    recipe: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 belongs to recipes of version 1."""
        return {**fields, "recipe_format": 1} if version == 1 else fields

    @property
    def of_whole_recipes(self) -> bool:
        """Whether its arms are recipes of runs, which may differ in more than their methods."""
        return "recipes" in self.recipe

    @property
    def of_design_stage(self) -> bool:
        """Whether its arms are choices of a search of designs, whose designs differ by seed."""
        return "stage" in self.recipe

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
        append_record(path, self.format_name, self.fields())

    def __str__(self) -> str:
        ending = "was tried again" if self.tried_again else "is not counted"
        return f"{self.run} crashed (exit {self.exit}) and {ending}"


State = Literal["waiting", "running", "done", "failed", "diverged", "not begun"]
"""How a run of a comparison stands."""
LOST: tuple[State, ...] = ("failed", "diverged")
"""The states of runs that have ended without a result."""


class Trial(StoredModel):
    """One trial: its learning rate and seed, its scores on the held-out rows, its cost.

    ``state`` is "not begun" if the search reached its limit before this trial. ``one_class`` is
    True if it gives all held-out rows the same answer, although their labels differ. ``steps`` are
    those of the optimizer. ``options`` are those that it tries beside the learning rate. Older
    versions stored none of these.
    """

    lr: float
    seed: int
    state: State
    score: float | None = None
    loss: float | None = None
    seconds: float | None = None
    one_class: bool = False
    steps: Count | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        lr: float,
        seed: int,
        result: RunResult | None,
        state: State,
        *,
        one_class: bool = False,
        steps: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Trial:
        """The trial that has this result; one whose score is not a finite number has failed."""
        tried = dict(options or {})
        if result is None:
            return cls(lr=lr, seed=seed, state=state, steps=steps, options=tried)
        seconds = (result.train_seconds or 0.0) + (result.measure_seconds or 0.0)
        known: dict[str, Any] = {"lr": lr, "seed": seed, "seconds": seconds, "steps": steps}
        known["options"] = tried
        if result.score is None:
            return cls(state="failed", **known)
        loss = result.metrics.get("loss")
        return cls(state="done", score=result.score, loss=loss, one_class=one_class, **known)


class LearningRateChoice(StoredModel):
    """The learning rate that the search of an arm chose; ``remark`` says why it is uncertain.

    Args:
        lr: None if no trial finished.
        inside: Whether the best learning rate is neither the smallest nor the largest that was
            tried, and no trial is missing.
        remark: Why the choice is uncertain; None if it is not.
        metric: The score of the trials.
        trials: All of them.
        rule: The name of what chose; see :mod:`iwlora.compare.statistics.learning_rate.rules`.
        low: The lower end of the 95% interval of the best learning rate; None: not known.
        high: Its upper end.
        added: The learning rates that the search added to the grid, because the best was at its
            edge.
        options: The values of the options that were searched with the learning rate.
        max_steps: The most optimizer steps that the trials of each arm may take; None in older
            versions.
    """

    lr: float | None
    inside: bool
    remark: str | None
    metric: Name | None
    trials: list[Trial]
    rule: Name = "best-score"
    low: float | None = None
    high: float | None = None
    added: list[float] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)
    max_steps: Count | None = None

    @property
    def steps(self) -> int | None:
        """The optimizer steps of all trials; None if they are not known."""
        steps = [trial.steps for trial in self.trials if trial.state != "not begun"]
        return None if None in steps else sum(filter(None, steps))


class Search(Document):
    """``search.json`` of a comparison: {label: the learning rate chosen for this arm}."""

    format_name: ClassVar[str] = "search"

    arms: dict[Label, LearningRateChoice] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had the arms at the top."""
        return {"arms": fields} if version == 1 else fields
