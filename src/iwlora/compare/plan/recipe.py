"""The recipe of a comparison, with ``methods`` and ``seeds``, as a plan of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from iwlora.compare.plan.arms import NOT_METHOD_OPTIONS, add_controls, arm_label, unfair_settings
from iwlora.compare.plan.planned_runs import Plan, PlannedRun, with_equal_study_rows
from iwlora.compare.plan.search.learning_rate import DRAWS, SearchSettings, trial_order
from iwlora.compare.plan.search.options import (
    option_combinations,
    option_problems,
    with_options,
)
from iwlora.compare.plan.seeds import read_seeds, seed_problems, too_few_draws
from iwlora.compare.plan.training_data import own_training_data, unused_fields, vary_problems
from iwlora.compare.statistics.learning_rate.rules import FORMER_RULE
from iwlora.errors import IwloraError
from iwlora.inputs.limits import LARGEST_SEED
from iwlora.results.comparison.record import MAX_SEEDS, StoppingRule
from iwlora.training.overrides import override, read_yaml, validate
from iwlora.training.recipe import build

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
    seeds, stop, problems = read_seeds(settings)
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
    problems += too_few_draws(stop, len(arms))
    if problems:
        raise IwloraError("\n".join(problems))
    of_runs, of_trials = with_equal_study_rows(runs), with_equal_study_rows(trials)
    baseline = settings.get("baseline")
    return Plan(settings, of_runs, search, of_trials, baseline, tuple(vary), stop)


def _structural_problems(settings: Mapping[str, Any]) -> list[str]:
    """Why the arms and seeds cannot be read at all."""
    methods = settings.get("methods")
    problems = []
    if not isinstance(methods, list) or not methods:
        problems.append("methods: missing; give a list such as [lora, iw-lora]")
    problems += seed_problems(settings.get("seeds", [0]))
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
