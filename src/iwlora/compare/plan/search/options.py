"""Options that a search tries together with the learning rate: ``search.options``.

The steps of an arm are divided equally among the combinations of its options. Each combination has
a search of its own on the same draws, and the one with the lowest loss is chosen. Combinations are
drawn without proposals from earlier results, so that trials can run at once and a search that was
stopped asks for the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from iwlora.compare.plan.search.learning_rate import SearchSettings
from iwlora.compare.statistics.learning_rate.curve import learning_rate_effects
from iwlora.compare.statistics.learning_rate.rules import (
    cannot_win,
    fail_without_loss,
    loss_table,
)
from iwlora.errors import unknown
from iwlora.methods import METHODS
from iwlora.results.comparison.record import Trial
from iwlora.results.layout import options_text
from iwlora.training.recipe import Recipe

TRAIN_OPTIONS = ("weight_decay", "warmup", "max_grad_norm")
"""Fields of ``train`` that can be searched: they change neither steps nor data."""


def option_combinations(search: SearchSettings, arm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The combinations of the options that an arm has, in an order that the trials' seed decides.

    Args:
        search: The settings; an option that is not one of the arm's method is left out.
        arm: An entry of ``methods``.

    Example:
        >>> search = SearchSettings(
        ...     lr=[1e-4, 1e-3, 1e-2], seeds=[7], options={"alpha": [1e-4, 1e-2], "rank": [4, 8]}
        ... )
        >>> option_combinations(search, {"name": "lora"})
        [{'rank': 4}, {'rank': 8}]
    """
    fields = METHODS[arm["name"]].model_fields if arm.get("name") in METHODS else {}
    own = {
        key: values for key, values in search.options.items() if key in {*fields, *TRAIN_OPTIONS}
    }
    combinations = [dict(zip(own, values, strict=True)) for values in product(*own.values())]
    random.Random(search.seeds[0]).shuffle(combinations)
    return combinations


def combinations_within(trials: int, grid: int, combinations: int) -> int:
    """How many combinations are tried: those for which a limit has a first draw of the grid.

    Args:
        trials: How many trials the limit allows.
        grid: The number of learning rates.
        combinations: The number of combinations of the options.

    Example:
        >>> combinations_within(10, 3, 4)
        3
    """
    return min(combinations, max(1, trials // grid))


def with_options(arm: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of ``methods`` with other values of some options.

    >>> with_options({"name": "lora", "rank": 8}, {"rank": 4, "warmup": 0.1})
    {'name': 'lora', 'rank': 4, 'train': {'warmup': 0.1}}
    """
    train = {key: value for key, value in options.items() if key in TRAIN_OPTIONS}
    method = {key: value for key, value in options.items() if key not in TRAIN_OPTIONS}
    changed = {**arm, **method}
    return {**changed, "train": {**(arm.get("train") or {}), **train}} if train else changed


def options_of(recipe: Recipe, names: Iterable[str]) -> dict[str, Any]:
    """The values that a run has of some options, without those that its method does not have."""
    fields = {**vars(recipe.method), **{key: getattr(recipe.train, key) for key in TRAIN_OPTIONS}}
    return {name: fields[name] for name in names if name in fields}


def with_choice_of(recipe: Recipe, other: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe with the learning rate and some options of another one."""
    chosen = options_of(other, names)
    train = {key: value for key, value in chosen.items() if key in TRAIN_OPTIONS}
    method = {key: value for key, value in chosen.items() if key not in TRAIN_OPTIONS}
    changed = recipe.with_train(lr=other.train.lr, **train)
    return changed.model_copy(update={"method": recipe.method.model_copy(update=method)})


def option_problems(
    search: SearchSettings, arms: Sequence[Mapping[str, Any]], unequal_budgets: bool
) -> list[str]:
    """One message for each option that no arm has, or whose values change an arm's budget."""
    methods = [METHODS[arm["name"]] for arm in arms if arm.get("name") in METHODS]
    accepted = dict.fromkeys([*(key for each in methods for key in each.model_fields)])
    problems = []
    for key in search.options:
        if key not in {*accepted, *TRAIN_OPTIONS}:
            problems.append(str(unknown("search.options", key, [*accepted, *TRAIN_OPTIONS])))
        elif key in {method.size_knob for method in methods} and not unequal_budgets:
            problems.append(
                f"search.options.{key}: the arms may end with other numbers of adapter parameters; "
                f"remove it, or set unequal_budgets=true to compare them anyway"
            )
    return problems


def best_combination(trials: Sequence[Trial], metric: str | None = None) -> dict[str, Any] | None:
    """The options with the lowest loss at any learning rate; None if no trial can win.

    Losses are compared within draws, as those of learning rates are; never with scores.

    Example:
        >>> losses = ((4, 0.6), (8, 0.5))
        >>> best_combination([
        ...     Trial(lr=1e-3, seed=7, state="done", score=0.5, loss=loss, options={"rank": rank})
        ...     for rank, loss in losses
        ... ])
        {'rank': 8}
    """
    by_options: dict[str, list[Trial]] = {}
    for trial in fail_without_loss(trials):
        by_options.setdefault(options_text(trial.options), []).append(trial)
    seeds = dict.fromkeys(trial.seed for trial in trials)
    columns, options = [], []
    for each in by_options.values():
        padded = [Trial(lr=0, seed=seed, state="not begun") for seed in seeds]
        rates = sorted({trial.lr for trial in each if trial.state == "done"} - cannot_win(each))
        columns.append(loss_table([*padded, *each], rates, metric))
        options += [each[0].options] * len(rates)
    losses = np.hstack(columns)
    if not losses.size:
        return None
    return options[int(learning_rate_effects(losses).round(12).argmin())]
