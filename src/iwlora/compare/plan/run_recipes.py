"""Comparing your own runs: two or more recipes of runs, executed with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.recipe import seed_problems
from iwlora.compare.statistics.paired_tests import MIN_SEEDS
from iwlora.errors import IwloraError
from iwlora.training.overrides import override, read_yaml
from iwlora.training.recipe import Recipe, apply_overrides, build

COMPARISON_FIELDS = ("seeds", "unequal_budgets", "baseline")
"""Fields that overrides set for the comparison and not for its runs."""


def plan_run_recipes(paths: Sequence[str], overrides: Sequence[str] = ()) -> Plan:
    """Plan a comparison of whole recipes, each an arm named by its ``label`` or its file.

    They may differ in any setting but the model, the task and the seed.

    Args:
        paths: The recipes of runs.
        overrides: ``key=value`` settings of all runs. ``seeds=[...]`` sets the seeds; without it
            there are six, the fewest that can decide. ``baseline=LABEL`` names the arm that the
            others are compared with.

    Raises:
        IwloraError: With every problem.
    """
    for_comparison = [text for text in overrides if text.partition("=")[0] in COMPARISON_FIELDS]
    for_runs = [text for text in overrides if text not in for_comparison]
    settings = override({"seeds": list(range(MIN_SEEDS))}, for_comparison)
    seeds = settings["seeds"]
    problems = seed_problems(seeds)
    recipes: dict[str, Recipe] = {}
    for path in paths:
        run_settings = apply_overrides(read_yaml(path), for_runs)
        if "methods" in run_settings:
            problems.append(f"{path} is a comparison's recipe; give it alone, or recipes of runs")
            continue
        try:
            recipe = build(run_settings)
        except IwloraError as error:
            problems += [f"{path}: {line}" for line in str(error).splitlines()]
            continue
        label = recipe.label or Path(path).stem
        if label in recipes:
            problems.append(f"two recipes are named {label}; give each a label")
        recipes[label] = recipe
    first = next(iter(recipes.values()), None)
    problems += [
        f"{label}: its {field} differs from that of the others, so the scores cannot be compared"
        for label, recipe in recipes.items()
        for field in ("model", "task")
        if first and getattr(recipe, field) != getattr(first, field)
    ]
    if problems:
        raise IwloraError("\n".join(problems))
    runs = []
    for seed in dict.fromkeys(seeds):
        for label, recipe in recipes.items():
            train = recipe.train.model_copy(update={"seed": seed})
            run = recipe.model_copy(update={"train": train, "label": label})
            runs.append(PlannedRun(label, seed, run))
    by_label = {label: recipe.settings() for label, recipe in recipes.items()}
    plan = Plan({**settings, "recipes": by_label}, tuple(runs))
    return plan.with_baseline(settings.get("baseline"))
