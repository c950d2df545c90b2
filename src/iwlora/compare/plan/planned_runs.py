"""The runs that a comparison consists of: arms × seeds, each a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iwlora.compare.plan.search.learning_rate import SearchSettings
from iwlora.compare.statistics.learning_rate.rules import find_rule
from iwlora.compare.statistics.sequential import fewest_draws
from iwlora.errors import unknown
from iwlora.results import layout
from iwlora.results.comparison.record import ComparisonRecord, RaceRule, StoppingRule
from iwlora.results.formats import VERSIONS
from iwlora.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a comparison.

    ``trial`` is True for a run of the learning-rate search, which is never reported; ``options``
    are those that it tries beside the learning rate.
    """

    label: str
    seed: int
    recipe: Recipe
    trial: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, comparison: Path) -> Path:
        """Its folder below the comparison's."""
        if self.trial:
            lr = self.recipe.train.lr
            return layout.trial_folder(comparison, self.label, lr, self.seed, self.options)
        return layout.run_folder(comparison, self.label, self.seed)

    def as_trial(self, lr: float, seed: int, holdout: float) -> PlannedRun:
        """The run that tries ``lr``, scored on held-out training rows."""
        task = self.recipe.task.model_copy(update={"holdout": holdout})
        recipe = self.recipe.with_train(lr=lr, seed=seed).model_copy(update={"task": task})
        return replace(self, seed=seed, recipe=recipe, trial=True)

    def with_learning_rate(self, lr: float) -> PlannedRun:
        """The same run with the learning rate that a search has chosen."""
        return replace(self, recipe=self.recipe.with_train(lr=lr))

    def with_settings_of(self, trial: PlannedRun) -> PlannedRun:
        """The same run with the method and the training settings of a trial, but for the seed."""
        train = trial.recipe.train.model_copy(update={"seed": self.seed})
        changes = {"method": trial.recipe.method, "train": train}
        return replace(self, recipe=self.recipe.model_copy(update=changes))

    def with_draw_rows(self, rows: int | None) -> PlannedRun:
        """The same run beside arms whose largest draw has so many training rows."""
        task = self.recipe.task.model_copy(update={"draw_rows": rows})
        return replace(self, recipe=self.recipe.model_copy(update={"task": task}))

    def __str__(self) -> str:
        trial = (
            f", trial of lr {layout.learning_rate_text(self.recipe.train.lr)}" if self.trial else ""
        )
        if self.options:
            trial += f", {layout.options_text(self.options)}"
        return f"{self.label}, seed {self.seed}{trial}"


def with_equal_study_rows(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """The runs of all arms, with the study rows that the largest draw of any arm leaves.

    Without this, ``task.score_rows=all`` would be more rows for an arm with smaller draws.
    """
    of_all = [run.recipe.task for run in runs if run.recipe.task.score_rows == "all"]
    draws = {task.max_train for task in of_all}
    largest = max((rows for rows in draws if rows), default=None)
    if len(draws) < 2 or None in draws:  # equal draws, or an arm that leaves no rows
        return tuple(runs)
    return tuple(run.with_draw_rows(largest) for run in runs)


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, seed by seed, and the settings that they were made from.

    With a ``search``, the ``trials`` run first; the reported ``runs`` of an arm then get the
    learning rate that its trials have chosen. The other arms are compared with the ``baseline``.
    The fields ``vary`` of the training data may differ between arms. With a rule ``stop`` the
    ``runs`` are the most that there can be: those that no verdict needs do not begin. In a
    ``race``, where arms are dropped, they are the most too.

    Raises:
        IwloraError: No arm is named as the baseline.
    """

    settings: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]
    search: SearchSettings | None = None
    trials: tuple[PlannedRun, ...] = ()
    baseline: str | None = None
    vary: tuple[str, ...] = ()
    stop: StoppingRule | None = None
    race: RaceRule | None = None
    recipe_format: int = VERSIONS["recipe"]
    """The version of the recipe format whose defaults the runs follow."""

    def __post_init__(self) -> None:
        if self.baseline is not None and self.baseline not in self.labels:
            raise unknown("baseline", str(self.baseline), self.labels)

    @property
    def may_end_early(self) -> bool:
        """Whether some of the runs may never begin: draws that no verdict needs, or trials."""
        adaptive = self.search is not None and find_rule(self.search.rule).adaptive
        return adaptive or self.ends_by_scores

    @property
    def ends_by_scores(self) -> bool:
        """Whether the scores decide which of the ``runs`` begin."""
        return self.stop is not None or self.race is not None

    @property
    def first_runs(self) -> list[PlannedRun]:
        """The run of each arm with the first seed."""
        return [run for run in self.runs if run.seed == self.runs[0].seed]

    @property
    def labels(self) -> list[str]:
        """The arms, in the order of the recipe."""
        return [run.label for run in self.first_runs]

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the recipe."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def certain_seeds(self) -> list[int]:
        """The seeds that every arm gets; with a rule ``stop``, the fewest that can decide."""
        if self.race is not None:
            return self.seeds[: self.race.draws[0]]
        if self.stop is None:
            return self.seeds
        return self.seeds[: fewest_draws(self.stop, len(self.labels) - 1)]

    def with_former_defaults(self, recipe_format: int) -> Plan:
        """The same plan with the defaults of a format; see ``Recipe.with_former_defaults``."""
        runs, trials = (
            tuple(
                replace(run, recipe=run.recipe.with_former_defaults(recipe_format)) for run in group
            )
            for group in (self.runs, self.trials)
        )
        return replace(self, runs=runs, trials=trials, recipe_format=recipe_format)

    def record(self) -> ComparisonRecord:
        """Which runs there should be, and the recipe."""
        recipe = self.runs[0].recipe
        return ComparisonRecord(
            model=recipe.model,
            task=recipe.task.title,
            methods=self.labels,
            seeds=self.seeds,
            searched=self.search is not None,
            search_rule=self.search.rule if self.search else None,
            baseline=self.baseline,
            vary=list(self.vary),
            stop=self.stop,
            race=self.race,
            recipe_format=self.recipe_format,
            recipe=dict(self.settings),
        )
