"""The recipe of a comparison: that of a run, with ``methods`` and ``seeds`` for ``method``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.compare.plan.arms import NOT_METHOD_OPTIONS, add_controls, unfair_settings
from iwlora.compare.plan.learning_rate_search import SearchSettings, trial_order, trial_recipe
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.errors import IwloraError
from iwlora.training.overrides import override, read_yaml, validate
from iwlora.training.recipe import Recipe, build

COMPARISON_FIELDS = ("methods", "seeds", "unequal_budgets", "controls", "search", "baseline")
"""The fields of a comparison's recipe that are not settings of its runs."""


def load_plan(path: str, overrides: Sequence[str] = ()) -> Plan:
    """Read the recipe of a comparison.

    An entry of ``methods`` is a name, or a mapping with ``name`` and the method's options, and for
    this arm alone a ``label``, the learning rate (``train: {lr: ...}``) or the learning rates to
    search (``search: {lr: [...]}``). ``controls: true`` adds the control arms of each method that
    has some, ``search`` lets every arm search its learning rate, ``baseline`` is the label of the
    arm that the others are compared with.

    Args:
        path: The recipe.
        overrides: ``key=value`` settings that replace those of the recipe.

    Raises:
        IwloraError: With every problem, such as a setting that would be unfair to other arms.
    """
    settings = override(read_yaml(path), overrides)
    if problems := _structural_problems(settings):
        raise IwloraError("\n".join(problems))
    methods, seeds = settings["methods"], settings.get("seeds", [0])
    search, problems = _search_settings(settings.get("search"), seeds)
    searched = settings.get("search") is not None
    problems += [problem for entry in methods for problem in unfair_settings(entry, searched)]
    if settings.get("controls"):
        arms = add_controls(methods)
        if len(arms) == len(methods):
            problems.append("controls=true: none of these methods has control arms; remove it")
        methods = arms
    shared = {key: value for key, value in settings.items() if key not in COMPARISON_FIELDS}
    runs: list[PlannedRun] = []
    for seed in dict.fromkeys(seeds):
        for entry in methods:
            recipe, new_problems = _build_run(shared, entry, seed)
            problems += [problem for problem in new_problems if problem not in problems]
            if recipe is not None:
                runs.append(PlannedRun(str(recipe.label), seed, recipe))
    labels = [run.label for run in runs if run.seed == seeds[0]]
    repeated = {label for label in labels if labels.count(label) > 1}
    if repeated:
        problems.append(f"methods: {', '.join(sorted(repeated))} named twice; give each a label")
    trials: list[PlannedRun] = []
    if search and not problems:
        for entry, run in zip(methods, runs, strict=False):  # the runs of the first seed
            learning_rates, new_problems = _arm_learning_rates(search, entry)
            problems += new_problems
            trials += _plan_trials(search, run, learning_rates)
    if problems:
        raise IwloraError("\n".join(problems))
    plan = Plan(settings, tuple(runs), search, tuple(trials))
    return plan.with_baseline(settings.get("baseline"))


def seed_problems(seeds: Any) -> list[str]:
    """A message if ``seeds`` is not a list of whole numbers."""
    if isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds):
        return []
    return [f"seeds={seeds!r}: accepted is a list of whole numbers such as [0, 1, 2]"]


def _structural_problems(settings: Mapping[str, Any]) -> list[str]:
    """Why the arms and seeds cannot be read at all."""
    methods = settings.get("methods")
    problems = []
    if not isinstance(methods, list) or not methods:
        problems.append("methods: missing; give a list such as [lora, iw-lora]")
    problems += seed_problems(settings.get("seeds", [0]))
    if "method" in settings:
        problems.append("method: a comparison has 'methods', a list; for one run use iwlora train")
    if "seed" in _mapping(settings.get("train")):
        problems.append("train.seed: a comparison has 'seeds', a list; all methods get the same")
    if _mapping(settings.get("task")).get("holdout") is not None:
        problems.append("task.holdout: a comparison scores what its task reports; remove it")
    if settings.get("controls") not in (None, True, False):
        problems.append(f"controls={settings['controls']!r}: accepted are true and false")
    return problems


def _search_settings(search: Any, seeds: Sequence[int]) -> tuple[SearchSettings | None, list[str]]:
    if search is None:
        return None, []
    if isinstance(search, Mapping):
        search = {"seeds": [max(seeds) + 1], **search}
    return validate(SearchSettings, search, "search")


def _arm_learning_rates(search: SearchSettings, entry: Any) -> tuple[list[float], list[str]]:
    """The learning rates that an arm tries: its own or those of all, equally many for each."""
    arm_search = entry.get("search") if isinstance(entry, Mapping) else None
    if arm_search is None:
        return search.lr, []
    arm = f"methods: {entry.get('label', entry.get('name'))}"
    if not isinstance(arm_search, Mapping) or set(arm_search) != {"lr"}:
        return [], [f"{arm}: search={arm_search!r}: accepted is a grid alone, {{lr: [...]}}"]
    settings, problems = validate(
        SearchSettings, {"lr": arm_search["lr"], "seeds": [0]}, f"{arm}: search"
    )
    if settings is None:
        return [], problems
    if len(settings.lr) != len(search.lr):
        problems = [
            f"{arm}: search.lr has {len(settings.lr)} learning rates and that of the other arms "
            f"{len(search.lr)}: more trials would be unfair; give as many"
        ]
    return settings.lr, problems


def _plan_trials(
    search: SearchSettings, run: PlannedRun, learning_rates: Sequence[float]
) -> list[PlannedRun]:
    return [
        PlannedRun(run.label, seed, trial_recipe(run.recipe, lr, seed, search.holdout), trial=True)
        for lr, seed in trial_order(learning_rates, search.seeds)
    ]


def _build_run(shared: Mapping[str, Any], entry: Any, seed: int) -> tuple[Recipe | None, list[str]]:
    """The recipe of one run: the shared settings with those of its arm."""
    options = {"name": entry} if isinstance(entry, str) else _mapping(entry)
    settings = {
        **shared,
        "method": {key: v for key, v in options.items() if key not in NOT_METHOD_OPTIONS},
        "label": options.get("label", options.get("name")),
        "train": {
            **_mapping(shared.get("train")),
            **_mapping(options.get("train")),
            "seed": seed,
        },
    }
    try:
        recipe = build(settings)
    except IwloraError as error:
        return None, str(error).splitlines()
    if recipe.method.size_knob is None:  # the budget is for the arms whose size can be set
        recipe = recipe.model_copy(update={"budget": None})
    return recipe, []


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
