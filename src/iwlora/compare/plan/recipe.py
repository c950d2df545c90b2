"""A comparison: methods × seeds on one model and task, each a run of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iwlora.compare.plan import arms
from iwlora.compare.plan.learning_rate_search import Search, order, trial_recipe, with_rate
from iwlora.errors import IwloraError, unknown
from iwlora.inputs.yaml_json import to_yaml
from iwlora.results.layout import tried_at
from iwlora.results.run import MOST_BUDGET_DIFFERENCE
from iwlora.training.overrides import override, read_yaml, validate
from iwlora.training.recipe import Recipe, build

OWN = ("methods", "seeds", "unequal_budgets", "controls", "search", "baseline")
"""What a comparison's recipe holds beside the settings of its runs."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a comparison, in its folder below the comparison's.

    ``trial`` is True for a run of the search, which is never reported.
    """

    label: str
    seed: int
    recipe: Recipe
    trial: bool = False

    def folder(self, comparison: Path) -> Path:
        """``<comparison>/<label>/seed-<n>``, of a trial ``<label>/search/lr-<rate>/seed-<n>``."""
        arm = comparison / self.label
        if self.trial:
            arm = tried_at(comparison, self.label, self.recipe.train.lr)
        return arm / f"seed-{self.seed}"

    def at(self, lr: float) -> PlannedRun:
        """The same run at the learning rate that a search has found."""
        return replace(self, recipe=with_rate(self.recipe, lr))

    def __str__(self) -> str:
        rate = f", trial of lr {self.recipe.train.lr:g}" if self.trial else ""
        return f"{self.label}, seed {self.seed}{rate}"


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, seed by seed, and the settings that they came from.

    With a ``search``, ``trials`` come first, and the reported ``runs`` get the learning rate
    that those of their arm have found.
    """

    settings: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]
    search: Search | None = None
    trials: tuple[PlannedRun, ...] = ()
    baseline: str | None = None

    @property
    def labels(self) -> list[str]:
        """The arms, in the order of the recipe."""
        return list(dict.fromkeys(run.label for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the recipe."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def record(self) -> str:
        """``comparison.yaml``: which runs there should be, and the recipe."""
        recipe = self.runs[0].recipe
        record = {
            "model": recipe.model,
            "task": recipe.task.title,
            "methods": self.labels,
            "seeds": self.seeds,
            "searched": self.search is not None,
            "baseline": self.baseline,
            "recipe": dict(self.settings),
        }
        return to_yaml(record)


def load_plan(path: str, overrides: Sequence[str] = ()) -> Plan:
    """Read a comparison's recipe: that of a run, with ``methods`` and ``seeds`` for ``method``.

    An entry of ``methods`` is a name, or a mapping with ``name``, the method's options, and for
    this arm alone a ``label``, the learning rate (``train: {lr: ...}``) or the grid to search it
    in (``search: {lr: [...]}``). ``controls: true`` adds the control arms of each method that
    has some, ``search`` lets every arm search its learning rate, ``baseline`` is the label of the
    arm that the others are compared with. Raises ``IwloraError`` with every problem, such as a
    setting that would be unfair to the other arms.
    """
    settings = override(read_yaml(path), overrides)
    if problems := _unreadable(settings):
        raise IwloraError("\n".join(problems))
    methods, seeds = settings["methods"], settings.get("seeds", [0])
    search, problems = _search(settings, seeds)
    searched = settings.get("search") is not None
    problems += [found for entry in methods for found in arms.problems(entry, searched)]
    if settings.get("controls"):
        controlled = arms.with_controls(methods)
        if len(controlled) == len(methods):
            problems.append("controls=true: none of these methods has control arms; remove it")
        methods = controlled
    base = {key: value for key, value in settings.items() if key not in OWN}
    runs: list[PlannedRun] = []
    for seed in dict.fromkeys(seeds):
        for entry in methods:
            recipe, found = _arm(base, entry, seed)
            problems += [problem for problem in found if problem not in problems]
            if recipe is not None:
                runs.append(PlannedRun(str(recipe.label), seed, recipe))
    labels = [run.label for run in runs if run.seed == seeds[0]]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        problems.append(f"methods: {', '.join(sorted(twice))} named twice; give each a label")
    trials: list[PlannedRun] = []
    if search and not problems:
        for entry, run in zip(methods, runs, strict=False):  # the runs of the first seed
            grid, found = _grid(search, entry)
            problems += found
            trials += _trials(search, run, grid)
    if problems:
        raise IwloraError("\n".join(problems))
    return with_baseline(Plan(settings, tuple(runs), search, tuple(trials)), settings)


def with_baseline(plan: Plan, settings: Mapping[str, Any]) -> Plan:
    """The plan with the arm that ``baseline`` names; ``IwloraError`` where there is none."""
    label = settings.get("baseline")
    if label is not None and label not in plan.labels:
        raise unknown("baseline", str(label), plan.labels)
    return replace(plan, baseline=label)


def check_budgets(plan: Plan) -> dict[str, int]:
    """{label: adapter parameters} of the arms whose size can be set, which must be alike.

    Counted on a model without weights. Raises ``IwloraError`` when they differ by more than
    5%, unless the recipe says ``unequal_budgets: true``.
    """
    from iwlora.methods.budget import solve
    from iwlora.sites import sites
    from iwlora.training.model.backbone import skeleton

    first = plan.runs[0].recipe
    model = skeleton(first.model, trust_remote_code=first.trust_remote_code)
    found: dict[str, int] = {}
    for run in plan.runs:
        method = run.recipe.method
        if run.seed != plan.runs[0].seed:
            continue
        places = sites(model, run.recipe.targets)
        method.check_model(model, places)
        if method.size_knob is None:
            continue
        budget = run.recipe.budget
        size = method.size if budget is None else solve(method, model, places, budget)
        method.check(places, size)
        found[run.label] = method.parameters(model, places, size)
    unequal = found and max(found.values()) > (1 + MOST_BUDGET_DIFFERENCE) * min(found.values())
    if unequal and not plan.settings.get("unequal_budgets"):
        told = ", ".join(f"{label} {count:,}" for label, count in found.items())
        raise IwloraError(
            f"the methods do not have the same budget of adapter parameters: {told}; set equal "
            "ranks or a budget, or say unequal_budgets=true to compare them all the same"
        )
    return found


def check_task(plan: Plan) -> None:
    """Raise ``IwloraError`` for what is wrong with the data or the length of their texts.

    Every run would say the same, one after the other.
    """
    from iwlora import tasks
    from iwlora.tasks.tokenization import tokenize
    from iwlora.training.model.backbone import load_tokenizer, locate

    first = plan.runs[0].recipe
    task = tasks.load(first.task, first.train.seed)
    tokenizer = load_tokenizer(locate(first.model), first.trust_remote_code)
    for length in dict.fromkeys(run.recipe.train.max_length for run in plan.runs):
        tokenize([task.splits["train"][name][:1] for name in task.text], tokenizer, length)


def _unreadable(settings: Mapping[str, Any]) -> list[str]:
    """What keeps the arms and seeds from being read at all."""
    methods, seeds = settings.get("methods"), settings.get("seeds", [0])
    problems = []
    if not isinstance(methods, list) or not methods:
        problems.append("methods: missing; give a list such as [lora, iw-lora]")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        problems.append(f"seeds={seeds!r}: accepted is a list of whole numbers such as [0, 1, 2]")
    if "method" in settings:
        problems.append("method: a comparison has 'methods', a list; for one run use iwlora train")
    if "seed" in _mapping(settings.get("train")):
        problems.append("train.seed: a comparison has 'seeds', a list; all methods get the same")
    if _mapping(settings.get("task")).get("holdout") is not None:
        problems.append("task.holdout: a comparison scores what its task reports; remove it")
    if settings.get("controls") not in (None, True, False):
        problems.append(f"controls={settings['controls']!r}: accepted are true and false")
    return problems


def _search(settings: Mapping[str, Any], seeds: Sequence[int]) -> tuple[Search | None, list[str]]:
    given = settings.get("search")
    if given is None:
        return None, []
    if isinstance(given, Mapping):
        given = {"seeds": [max(seeds) + 1], **given}
    return validate(Search, given, "search")


def _grid(search: Search, entry: Any) -> tuple[list[float], list[str]]:
    """The learning rates that an arm searches, which are as many for every arm."""
    own = entry.get("search") if isinstance(entry, Mapping) else None
    if own is None:
        return search.lr, []
    name = entry.get("label", entry.get("name"))
    if not isinstance(own, Mapping) or set(own) != {"lr"}:
        return [], [f"methods: {name}: search={own!r}: accepted is a grid alone, {{lr: [...]}}"]
    found, problems = validate(Search, {"lr": own["lr"], "seeds": [0]}, f"methods: {name}: search")
    if found is None:
        return [], problems
    if len(found.lr) != len(search.lr):
        problems = [
            f"methods: {name}: search.lr has {len(found.lr)} learning rates and that of the other "
            f"arms {len(search.lr)}: more trials would be unfair; give as many"
        ]
    return found.lr, problems


def _trials(search: Search, run: PlannedRun, grid: Sequence[float]) -> Iterator[PlannedRun]:
    for lr, seed in order(grid, search.seeds):
        recipe = trial_recipe(run.recipe, lr, seed, search.holdout)
        yield PlannedRun(run.label, seed, recipe, trial=True)


def _arm(base: Mapping[str, Any], entry: Any, seed: int) -> tuple[Recipe | None, list[str]]:
    options = {"name": entry} if isinstance(entry, str) else _mapping(entry)
    train = {**_mapping(base.get("train")), **_mapping(options.get("train")), "seed": seed}
    settings = {
        **base,
        "method": {key: v for key, v in options.items() if key not in arms.SHARED},
        "label": options.get("label", options.get("name")),
        "train": train,
    }
    try:
        recipe = build(settings)
    except IwloraError as error:
        return None, str(error).splitlines()
    if recipe.method.size_knob is None:  # the budget is that of the arms whose size can be set
        recipe = recipe.model_copy(update={"budget": None})
    return recipe, []


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
