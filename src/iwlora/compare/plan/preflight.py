"""Checks of a whole comparison before its first run starts: equal budgets, readable data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iwlora import tasks
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.statistics.budget_parity import MOST_BUDGET_DIFFERENCE
from iwlora.errors import BadRow, IwloraError, raise_all
from iwlora.methods.budget import fit_to_budget
from iwlora.results import layout
from iwlora.results.fingerprint import differences, joined, of_scoring
from iwlora.results.writing import reserve
from iwlora.sites import sites
from iwlora.tasks.spec import TaskSpec
from iwlora.tasks.tokenization import tokenize
from iwlora.training.loop.weight_average import check_average_last
from iwlora.training.model.backbone import load_processor, meta_model, resolve_model_path
from iwlora.training.model.recipe_head import declare_modules
from iwlora.training.model.vocabulary import fit_tokenizer
from iwlora.training.recipe import Recipe
from iwlora.training.state.fingerprint import fingerprint_of


def check_budgets(plan: Plan) -> dict[str, int]:
    """Check that all arms whose size can be set have about the same number of parameters.

    They are counted on a model without weights.

    Returns:
        {label: adapter parameters} of these arms.

    Raises:
        IwloraError: The model cannot have some arms, which are all named; or they differ by more
            than 5%, and the recipe does not say ``unequal_budgets: true``.
    """
    first = plan.runs[0].recipe
    model = meta_model(first)
    declare_modules(model, first)
    budgets, problems = dict[str, int](), dict[str, None]()
    for run in plan.first_runs:
        try:
            parameters = _parameters(run.recipe, model)
        except IwloraError as error:
            problems[str(error)] = None
            continue
        if parameters is not None:
            budgets[run.label] = parameters
    raise_all([*problems])
    largest, smallest = max(budgets.values(), default=0), min(budgets.values(), default=0)
    unequal = largest > (1 + MOST_BUDGET_DIFFERENCE) * smallest
    if unequal and not plan.settings.get("unequal_budgets"):
        counts = ", ".join(f"{label} {count:,}" for label, count in budgets.items())
        raise IwloraError(
            f"the methods do not have the same budget of adapter parameters: {counts}; set equal "
            "ranks or a budget, or set unequal_budgets=true to compare them anyway"
        )
    return budgets


def _parameters(recipe: Recipe, model: Any) -> int | None:
    """The adapter parameters of a run; None if its size cannot be set."""
    method = recipe.method
    every_target = sites(model, recipe.targets, recipe.exclude)
    targets = method.adaptable(every_target, recipe.targets)
    method.check_model(model, targets)
    if not method.takes_budget:
        return None
    if recipe.budget is not None:
        method = fit_to_budget(method, model, targets, recipe.budget)
    method.check(targets)
    return method.parameters(model, targets)


def check_space(plan: Plan, folder: Path, budgets: Mapping[str, int]) -> None:
    """Check that the disk has room for the runs that are not finished and will certainly begin.

    Args:
        plan: The comparison.
        folder: Its folder.
        budgets: What :func:`check_budgets` returned.

    Raises:
        CannotWrite: It has not.
    """
    first = plan.runs[0].recipe
    model = meta_model(first)
    every = {
        run.label: run.recipe.method.parameters(model, sites(model, run.recipe.targets))
        for run in plan.first_runs
        if run.label not in budgets
    }
    certain = [run for run in plan.runs if run.seed in plan.certain_seeds]
    needed = sum(
        run.recipe.train.run_bytes({**every, **budgets}[run.label])
        for run in (*plan.trials, *certain)
        if not (run.folder(folder) / layout.RESULT).is_file()
    )
    reserve(folder, needed, "the comparison")


def check_task(plan: Plan) -> tuple[list[int], list[BadRow]]:
    """Load the data of each arm and tokenize a row, since every run would report the same error.

    Data that several arms share are loaded once.

    Returns:
        The number of training rows of each arm, and the rows that cannot be used and are left out.

    Raises:
        IwloraError: The data cannot be read, arms would be scored on other rows, ``max_length``
            leaves no room for the text, or ``average_last`` is more steps than there are.
    """
    first = plan.runs[0].recipe
    task = tasks.load(first.task, first.train.seed)
    rows, problems = [len(task.splits["train"])], list[str]()
    loaded, bad = [(first.task, rows[0])], list(task.bad_rows)
    for run in plan.first_runs[1:]:
        known = [count for spec, count in loaded if spec == run.recipe.task]
        if not known:
            other = tasks.load(run.recipe.task, first.train.seed)
            known = [len(other.splits["train"])]
            loaded.append((run.recipe.task, known[0]))
            bad += other.bad_rows
            problems += _scored_otherwise(plan.runs[0], task, run, other)
        rows += known[:1]
    if problems:
        raise IwloraError("\n".join(problems))
    for run, count in zip(plan.first_runs, rows, strict=True):
        train = run.recipe.train
        steps_per_epoch = math.ceil(count / train.batch_size)
        check_average_last(train, steps_per_epoch, bool(run.recipe.task.selection))
    model = meta_model(first)
    path = resolve_model_path(first.model)
    tokenizer = load_processor(path, task.kind, first.trust_remote_code)
    if task.kind.reads_images:
        return rows, list(dict.fromkeys(bad))
    fit_tokenizer(first.model, model, tokenizer)
    for length in dict.fromkeys(run.recipe.train.max_length for run in plan.runs):
        tokenize([task.splits["train"][name][:1] for name in task.text], tokenizer, length)
    return rows, list(dict.fromkeys(bad))


@dataclass(frozen=True)
class SearchSteps:
    """The optimizer steps of the trials of a search.

    Args:
        per_epoch: {label: those of an epoch}.
        of_trial: {label: those of a whole trial}.
        ceiling: The most that all trials of an arm take together: the same for each arm.
    """

    per_epoch: Mapping[str, int]
    of_trial: Mapping[str, int]
    ceiling: int


def check_search(plan: Plan) -> SearchSteps | None:
    """Load the data of the first trial of each arm, and count the steps of its search.

    Returns:
        None if there is no search.

    Raises:
        IwloraError: The data cannot be held out, or ``search.max_steps`` is too small to try each
            learning rate once.
    """
    if plan.search is None:
        return None
    rows: list[tuple[TaskSpec, int]] = []
    per_epoch, of_trial = dict[str, int](), dict[str, int]()
    for trial in {run.label: run for run in plan.trials}.values():
        task, train = trial.recipe.task, trial.recipe.train
        known = [count for spec, count in rows if spec == task]
        if not known:
            known = [len(tasks.load(task, trial.seed).splits["train"])]
            rows.append((task, known[0]))
        per_epoch[trial.label] = math.ceil(known[0] / train.batch_size)
        of_trial[trial.label] = train.count_steps(per_epoch[trial.label])
    needed = max(of_trial.values()) * len(plan.search.lr)
    ceiling = plan.search.max_steps or plan.search.most_trials * max(of_trial.values())
    if ceiling < needed:
        raise IwloraError(
            f"search.max_steps={ceiling}: to try each of the {len(plan.search.lr)} learning rates "
            f"once takes {needed:,} steps; raise it, or shorten search.lr"
        )
    return SearchSteps(per_epoch, of_trial, ceiling)


def _scored_otherwise(
    first: PlannedRun, task: tasks.Task, run: PlannedRun, other: tasks.Task
) -> list[str]:
    """Why the scores of an arm with its own training data would not compare with the first arm's.

    By digest: the scored rows and the class names, which may come from the training files.
    """
    before, rows_before = fingerprint_of(first.recipe, _only_scored(task))
    now, rows_now = fingerprint_of(run.recipe, _only_scored(other))
    split = task.reported[0]
    changed = differences(of_scoring(before, split), of_scoring(now, split), rows_before, rows_now)
    if not changed:
        return []
    return [
        f"{run.label} would not be scored as {first.label} is: {joined(changed)}; give rows to "
        "score that do not depend on the training data (task.validation or task.test), with the "
        "same classes in all training data"
    ]


def _only_scored(task: tasks.Task) -> tasks.Task:
    return replace(task, splits={name: task.splits[name] for name in task.reported})
