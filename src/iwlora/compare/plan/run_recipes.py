"""Whole recipes of runs, compared with each other, as a plan of their runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from iwlora.compare.plan.planned_runs import Plan, PlannedRun, with_equal_study_rows
from iwlora.compare.plan.seeds import read_seeds, seed_problems, too_few_draws
from iwlora.compare.plan.training_data import unused_fields, vary_problems
from iwlora.compare.statistics.paired_tests import MIN_SEEDS
from iwlora.errors import IwloraError
from iwlora.results.comparison.record import TRAINING_DATA
from iwlora.tasks.spec import TaskSpec
from iwlora.training.overrides import override, read_yaml
from iwlora.training.recipe import Recipe, apply_overrides, build


def plan_run_recipes(paths: Sequence[str], overrides: Sequence[str] = ()) -> Plan:
    """Plan a comparison of whole recipes, each an arm named by its ``label`` or its file.

    They may differ in any setting but the model, the task and the seed, and in those fields of the
    task that ``vary=[...]`` declares.

    Args:
        paths: The recipes of runs.
        overrides: ``key=value`` settings of all runs. ``seeds=[...]`` sets the seeds; without it
            there are six, the fewest that can decide; ``stop.difference=1.0`` adds seeds until each
            arm has a verdict. ``baseline=LABEL`` names the arm that the others are compared with.
            ``vary=[...]`` names fields of the training data in which the recipes differ.

    Raises:
        IwloraError: With every problem.
    """
    fields = ("seeds", "stop", "unequal_budgets", "baseline", "vary")
    for_comparison = [text for text in overrides if re.split(r"[.=]", text)[0] in fields]
    for_runs = [text for text in overrides if text not in for_comparison]
    settings = override({}, for_comparison)
    if settings.get("stop") is None:
        settings.setdefault("seeds", list(range(MIN_SEEDS)))
    vary = settings.get("vary") or []
    problems = [*seed_problems(settings.get("seeds", [0])), *vary_problems(vary)]
    seeds, stop, of_stop = ([], None, []) if problems else read_seeds(settings)
    problems += of_stop
    if problems:
        raise IwloraError("\n".join(problems))
    recipes: dict[str, Recipe] = {}
    for path in paths:
        run_settings = apply_overrides(read_yaml(path), for_runs)
        try:
            if "methods" in run_settings:
                raise IwloraError("it is a comparison's recipe; give it alone, or recipes of runs")
            recipe = build(run_settings)
        except IwloraError as error:
            problems += [f"{path}: {line}" for line in str(error).splitlines()]
            continue
        label = recipe.label or Path(path).stem
        if label in recipes:
            problems.append(f"two recipes are named {label}; give each a label")
        recipes[label] = recipe
    differing = _differing_fields(recipes)
    if not problems:  # else a recipe is missing that may differ
        used = [field for fields in differing.values() for field in fields]
        problems += unused_fields(vary, used)
    problems += [*_undeclared_differences(differing, vary), *too_few_draws(stop, len(recipes))]
    if problems:
        raise IwloraError("\n".join(problems))
    runs = [
        PlannedRun(label, seed, recipe.with_train(seed=seed).model_copy(update={"label": label}))
        for seed in dict.fromkeys(seeds)
        for label, recipe in recipes.items()
    ]
    settings["recipes"] = {label: recipe.settings() for label, recipe in recipes.items()}
    baseline = settings.get("baseline")
    of_runs = with_equal_study_rows(runs)
    return Plan(settings, of_runs, baseline=baseline, vary=tuple(vary), stop=stop)


def _differing_fields(recipes: Mapping[str, Recipe]) -> dict[str, list[str]]:
    """{label: the fields of model, task and training data that are not those of the first}."""
    fields = ["model", *(f"task.{name}" for name in TaskSpec.model_fields), "train.sampler"]
    values = {
        label: {field: attrgetter(field)(recipe) for field in fields}
        for label, recipe in recipes.items()
    }
    first = next(iter(values.values()), {})
    return {
        label: [field for field in fields if of_recipe[field] != first[field]]
        for label, of_recipe in values.items()
    }


def _undeclared_differences(
    differing: Mapping[str, Sequence[str]], vary: Sequence[str]
) -> Iterator[str]:
    for label, fields in differing.items():
        undeclared = [field for field in fields if field not in vary]
        if undeclared and set(undeclared) <= set(TRAINING_DATA):
            names = ", ".join(undeclared)
            yield (
                f"{label}: its training data differ from those of the others ({names}); if that is "
                f"what you compare, declare it: vary=[{names}]"
            )
        elif undeclared:
            part = "model" if "model" in undeclared else "task"
            yield (
                f"{label}: its {part} differs from that of the others, so the scores cannot be "
                "compared"
            )
