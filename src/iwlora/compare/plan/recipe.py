"""What is compared: a recipe with ``methods`` and ``seeds``, or two or more recipes of runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from iwlora.compare.plan.arms import NOT_METHOD_OPTIONS, add_controls, arm_label, unfair_settings
from iwlora.compare.plan.planned_runs import Plan, PlannedRun, with_equal_study_rows
from iwlora.compare.plan.search.learning_rate import DRAWS, SearchSettings, trial_order
from iwlora.compare.plan.search.options import (
    option_combinations,
    option_problems,
    with_options,
)
from iwlora.compare.plan.training_data import own_training_data, unused_fields, vary_problems
from iwlora.compare.statistics.learning_rate.rules import FORMER_RULE
from iwlora.compare.statistics.paired_tests import MIN_SEEDS
from iwlora.compare.statistics.sequential import fewest_draws
from iwlora.errors import IwloraError
from iwlora.inputs.limits import LARGEST_SEED
from iwlora.results.comparison.record import MAX_SEEDS, TRAINING_DATA, StoppingRule
from iwlora.tasks.spec import TaskSpec
from iwlora.training.overrides import override, read_yaml, validate
from iwlora.training.recipe import Recipe, apply_overrides, build

COMPARISON_FIELDS = (
    *("methods", "vary", "controls", "seeds", "stop", "search", "baseline", "unequal_budgets"),
)
"""The fields of a comparison's recipe that are not settings of its runs."""


def load_plan(path: str, overrides: Sequence[str] = ()) -> Plan:
    """Read the recipe of a comparison.

    An entry of ``methods`` is a name, or a mapping with ``name`` and the method's options, and for
    this arm alone a ``label``, the learning rate (``train: {lr: ...}``) or the learning rates to
    search (``search: {lr: [...]}``). ``controls: true`` adds the control arms of each method that
    has some, ``search`` lets every arm search its learning rate, ``baseline`` is the label of the
    arm that the others are compared with. ``vary`` names fields of the training data that an arm
    may set for itself, such as ``task.max_train`` (``task: {max_train: 1600}``). ``stop``,
    in the place of ``seeds``, adds seeds until each arm has a verdict (:class:`StoppingRule`).

    Args:
        path: The recipe.
        overrides: ``key=value`` settings that replace those of the recipe.

    Raises:
        IwloraError: With every problem, such as a setting that would be unfair to other arms.
    """
    return plan_settings(override(read_yaml(path), overrides))


def plan_settings(settings: Mapping[str, Any]) -> Plan:
    """The plan of the settings in a recipe; raises ``IwloraError`` as :func:`load_plan`."""
    if problems := _structural_problems(settings):
        raise IwloraError("\n".join(problems))
    seeds, stop, problems = _seeds(settings)
    searched = settings.get("search") is not None
    search = None
    if searched:
        search, of_search = _search_settings(settings["search"], seeds, stop)
        problems += of_search
    arms = [_mapping(entry) for entry in settings["methods"]]
    vary = settings.get("vary") or []
    problems += unused_fields(vary, [field for arm in arms for field in own_training_data(arm)])
    problems += [problem for arm in arms for problem in unfair_settings(arm, searched, vary)]
    if settings.get("controls"):
        arms = add_controls(arms)
        if len(arms) == len(settings["methods"]):
            problems.append("controls=true: none of these methods has control arms; remove it")
    shared = {key: value for key, value in settings.items() if key not in COMPARISON_FIELDS}
    runs: list[PlannedRun] = []
    trials: list[PlannedRun] = []
    if search:
        problems += option_problems(search, arms, bool(settings.get("unequal_budgets")))
    for seed in dict.fromkeys(seeds):
        for arm in arms:
            try:
                runs.append(_plan_run(shared, arm, seed))
                if search and seed == seeds[0]:
                    trials += _plan_trials(search, shared, arm, runs[-1])
            except IwloraError as error:
                problems += [line for line in str(error).splitlines() if line not in problems]
    labels = [run.label for run in runs if run.seed == seeds[0]]
    if repeated := {label for label in labels if labels.count(label) > 1}:
        problems.append(f"methods: {', '.join(sorted(repeated))} named twice; give each a label")
    problems += _too_few_draws(stop, len(arms))
    if problems:
        raise IwloraError("\n".join(problems))
    of_runs, of_trials = with_equal_study_rows(runs), with_equal_study_rows(trials)
    baseline = settings.get("baseline")
    return Plan(settings, of_runs, search, of_trials, baseline, tuple(vary), stop)


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
    problems = [*_seed_problems(settings.get("seeds", [0])), *vary_problems(vary)]
    seeds, stop, of_stop = ([], None, []) if problems else _seeds(settings)
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
    problems += [*_undeclared_differences(differing, vary), *_too_few_draws(stop, len(recipes))]
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


def _seeds(settings: Mapping[str, Any]) -> tuple[list[int], StoppingRule | None, list[str]]:
    """The seeds, at most as many as the rule ``stop`` allows, and what is wrong with it."""
    if settings.get("stop") is None:
        return settings.get("seeds", [0]), None, []
    rule, problems = validate(StoppingRule, settings["stop"], "stop")
    if "seeds" in settings:
        problems.append(
            "seeds and stop exclude each other: seeds fixes the draws, stop adds draws until each "
            "arm has a verdict; remove one (stop.max_seeds is the most)"
        )
    return list(range(rule.max_seeds if rule else 1)), rule, problems


def _too_few_draws(stop: StoppingRule | None, arms: int) -> list[str]:
    """A message if a sequential comparison could call nothing better or worse."""
    if stop is None:
        return []
    if arms < 2:
        return ["stop: it needs an arm to compare with another; give two methods, or seeds"]
    needed = fewest_draws(stop.model_copy(update={"max_seeds": MAX_SEEDS}), arms - 1)
    if needed <= stop.max_seeds:
        return []
    return [
        f"stop.max_seeds={stop.max_seeds}: with {arms} arms and an error of {stop.error:g} no "
        f"verdict is possible before {needed} draws; raise it"
    ]


def _seed_problems(seeds: Any) -> list[str]:
    """A message if ``seeds`` is not a list of seeds."""
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        return [f"seeds={seeds!r}: accepted is a list of whole numbers such as [0, 1, 2]"]
    if out := [seed for seed in seeds if not 0 <= seed <= LARGEST_SEED]:
        return [f"seeds: {out[0]} is no seed: accepted are whole numbers from 0 to {LARGEST_SEED}"]
    return []


def _structural_problems(settings: Mapping[str, Any]) -> list[str]:
    """Why the arms and seeds cannot be read at all."""
    methods = settings.get("methods")
    problems = []
    if not isinstance(methods, list) or not methods:
        problems.append("methods: missing; give a list such as [lora, iw-lora]")
    problems += _seed_problems(settings.get("seeds", [0]))
    problems += vary_problems(settings.get("vary") or [])
    if "method" in settings:
        problems.append("method: a comparison has 'methods', a list; for one run use iwlora train")
    if "seed" in _mapping(settings.get("train")):
        problems.append("train.seed: a comparison has 'seeds', a list; all methods get the same")
    if _mapping(settings.get("task")).get("holdout") is not None:
        problems.append("task.holdout: a comparison scores what its task reports; remove it")
    if settings.get("controls") not in (None, True, False):
        problems.append(f"controls={settings['controls']!r}: accepted are true and false")
    return problems


def _search_settings(
    search: Any, seeds: Sequence[int], stop: StoppingRule | None
) -> tuple[SearchSettings | None, list[str]]:
    if isinstance(search, Mapping):
        # Seeds that a comparison may add later are never those of its trials.
        first = MAX_SEEDS if stop else max(seeds) + 1
        draws = 1 if search.get("rule") == FORMER_RULE else DRAWS
        if first + draws - 1 > LARGEST_SEED and "seeds" not in search:
            return None, [
                f"search.seeds: missing; the seeds after {first - 1} would be too large, so give "
                f"{draws} others for the trials"
            ]
        search = {"seeds": [*range(first, first + draws)], **search}
    return validate(SearchSettings, search, "search")


def _plan_run(shared: Mapping[str, Any], arm: Mapping[str, Any], seed: int) -> PlannedRun:
    """A run: the shared settings with those of its arm."""
    train = {**_mapping(shared.get("train")), **_mapping(arm.get("train")), "seed": seed}
    own = arm.get("task")  # text is refused: it would name another task
    task = {**_mapping(shared.get("task")), **(own if isinstance(own, Mapping) else {})}
    method = {key: value for key, value in arm.items() if key not in NOT_METHOD_OPTIONS}
    label = arm_label(arm)
    recipe = build({**shared, "task": task, "method": method, "label": label, "train": train})
    if not recipe.method.takes_budget:  # the budget is for the arms whose size can be set
        recipe = recipe.model_copy(update={"budget": None})
    return PlannedRun(label, seed, recipe)


def _plan_trials(
    search: SearchSettings, shared: Mapping[str, Any], arm: Mapping[str, Any], run: PlannedRun
) -> list[PlannedRun]:
    """The trials of an arm, whose own grid must have as many learning rates as that of all."""
    learning_rates = search.lr
    if (own := arm.get("search")) is not None:
        prefix = f"methods: {run.label}: search"
        if not isinstance(own, Mapping) or set(own) != {"lr"}:
            raise IwloraError(f"{prefix}={own!r}: accepted is a grid alone, {{lr: [...]}}")
        settings, problems = validate(SearchSettings, {**search.model_dump(), **own}, prefix)
        if settings is None:
            raise IwloraError("\n".join(problems))
        learning_rates = settings.lr
        if len(learning_rates) != len(search.lr):
            raise IwloraError(
                f"{prefix}.lr has {len(learning_rates)} learning rates and that of the other arms "
                f"{len(search.lr)}: more trials would be unfair; give as many"
            )
    order = trial_order(learning_rates, search.seeds)
    trials = []
    for options in option_combinations(search, arm):
        varied = _plan_run(shared, with_options(arm, options), run.seed) if options else run
        varied = replace(varied, options=options)
        trials += [varied.as_trial(lr, seed, search.holdout) for lr, seed in order]
    return trials


def _mapping(value: Any) -> dict[str, Any]:
    """A part of the recipe; plain text is the short form of its ``name``."""
    if isinstance(value, str):
        return {"name": value}
    return dict(value) if isinstance(value, Mapping) else {}
