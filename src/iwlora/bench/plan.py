"""A comparison: methods × seeds on one model and task, each a run of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.files import write_text
from iwlora.training.recipe import Recipe, build
from iwlora.training.rundir import RunDir
from iwlora.training.settings import override, read_yaml, to_yaml

MOST_BUDGET_DIFFERENCE = 0.05


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison, in its folder below the comparison's."""

    label: str
    seed: int
    recipe: Recipe

    def folder(self, comparison: Path) -> Path:
        """``<comparison>/<label>/seed-<n>``."""
        return comparison / self.label / f"seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, seed by seed, and the settings that they came from."""

    settings: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]

    @property
    def labels(self) -> list[str]:
        """The arms, in the order of the recipe."""
        return list(dict.fromkeys(run.label for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the recipe."""
        return list(dict.fromkeys(run.seed for run in self.runs))


def load_plan(path: str, overrides: Sequence[str] = ()) -> Plan:
    """Read a comparison's recipe: that of a run, with ``methods`` and ``seeds`` for ``method``.

    An entry of ``methods`` is a name, or a mapping with ``name``, the method's options, and for
    this arm alone ``label`` and ``train`` settings. Raises ``IwloraError`` with every problem.
    """
    settings = override(read_yaml(path), overrides)
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
    if problems or not isinstance(methods, list) or not isinstance(seeds, list):
        raise IwloraError("\n".join(problems))
    base = {k: v for k, v in settings.items() if k not in ("methods", "seeds", "unequal_budgets")}
    runs = []
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
    if problems:
        raise IwloraError("\n".join(problems))
    return Plan(settings, tuple(runs))


def check_budgets(plan: Plan) -> dict[str, int]:
    """{label: adapter parameters} of the arms whose size can be set, which must be alike.

    Counted on a model without weights. Raises ``IwloraError`` when they differ by more than
    5%, unless the recipe says ``unequal_budgets: true``.
    """
    from iwlora.methods.budget import solve
    from iwlora.sites import sites
    from iwlora.training.backbone import skeleton

    model = skeleton(plan.runs[0].recipe.model)
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
    from iwlora.tasks.encode import tokenize
    from iwlora.training.backbone import load_tokenizer, locate

    first = plan.runs[0].recipe
    task = tasks.load(first.task, first.train.seed)
    tokenizer = load_tokenizer(locate(first.model))
    for length in dict.fromkeys(run.recipe.train.max_length for run in plan.runs):
        tokenize([task.splits["train"][name][:1] for name in task.text], tokenizer, length)


def compare(
    plan: Plan, out: str | Path, announce: Callable[[str], None] = print
) -> list[PlannedRun]:
    """Carry out what is not done yet, each run in a process of its own; returns those that failed.

    Raises ``IwloraError``, before any run, when a folder belongs to another recipe.
    """
    folder = Path(out)
    check_budgets(plan)
    check_task(plan)
    pending = []
    for run in plan.runs:
        if RunDir.open(run.folder(folder), run.recipe).result() is None:
            pending.append(run)
    write_text(folder / "comparison.yaml", _record(plan))
    if len(pending) < len(plan.runs):
        announce(f"{len(plan.runs) - len(pending)} of {len(plan.runs)} runs are done already")
    failed = []
    for number, run in enumerate(pending, start=1):
        announce(f"[{number}/{len(pending)}] {run.label}, seed {run.seed}")
        place = run.folder(folder)
        command = [sys.executable, "-m", "iwlora", "train", str(place / "recipe.yaml")]
        finished = subprocess.run([*command, "--out", str(place)], check=False)
        if finished.returncode != 0:
            failed.append(run)
            announce(f"{run.label}, seed {run.seed} failed (exit {finished.returncode})")
    return failed


def _arm(base: Mapping[str, Any], entry: Any, seed: int) -> tuple[Recipe | None, list[str]]:
    options = {"name": entry} if isinstance(entry, str) else _mapping(entry)
    train = {**_mapping(base.get("train")), **_mapping(options.get("train")), "seed": seed}
    settings = {
        **base,
        "method": {key: v for key, v in options.items() if key not in ("label", "train")},
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


def _record(plan: Plan) -> str:
    recipe = plan.runs[0].recipe
    record = {
        "model": recipe.model,
        "task": recipe.task.title,
        "methods": plan.labels,
        "seeds": plan.seeds,
        "recipe": dict(plan.settings),
    }
    return to_yaml(record)
