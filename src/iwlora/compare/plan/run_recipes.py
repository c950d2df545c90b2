"""One's own question: two or more recipes of runs, carried out with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iwlora.compare.plan.recipe import Plan, PlannedRun, with_baseline
from iwlora.compare.statistics.paired_tests import MIN_SEEDS
from iwlora.errors import IwloraError
from iwlora.training.overrides import override, read_yaml
from iwlora.training.recipe import Recipe, apply_overrides, build

OWN = ("seeds", "unequal_budgets", "baseline")
"""What is set for the comparison and not for its runs."""


def plan_recipes(paths: Sequence[str], overrides: Sequence[str] = ()) -> Plan:
    """A comparison of whole recipes, each an arm named by its ``label`` or its file.

    What differs between them is the question, so any setting but the seed may; the model and
    the task must be the same. ``seeds=[...]`` sets the seeds, six where they are not given: the
    fewest that can decide; ``baseline=LABEL`` names the arm that the others are compared with.
    Raises ``IwloraError`` with every problem.
    """
    own = [text for text in overrides if text.partition("=")[0] in OWN]
    rest = [text for text in overrides if text not in own]
    wanted = override({"seeds": list(range(MIN_SEEDS))}, own)
    seeds = wanted["seeds"]
    problems = []
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        problems.append(f"seeds={seeds!r}: accepted is a list of whole numbers such as [0, 1, 2]")
    recipes: dict[str, Recipe] = {}
    for path in paths:
        settings = apply_overrides(read_yaml(path), rest)
        if "methods" in settings:
            problems.append(f"{path} is a comparison's recipe; give it alone, or recipes of runs")
            continue
        try:
            recipe = build(settings)
        except IwloraError as error:
            problems += [f"{path}: {line}" for line in str(error).splitlines()]
            continue
        label = recipe.label or Path(path).stem
        if label in recipes:
            problems.append(f"two recipes are named {label}; give each a label")
        recipes[label] = recipe
    first = next(iter(recipes.values()), None)
    problems += [
        f"{label}: its {field} is not that of the others; scores on other data do not compare"
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
    settings = {
        **wanted,
        "recipes": {label: recipe.settings() for label, recipe in recipes.items()},
    }
    return with_baseline(Plan(settings, tuple(runs)), wanted)
