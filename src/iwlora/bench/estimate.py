"""What a comparison will take, from a few timed steps of each arm; nothing is kept."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from iwlora import tasks
from iwlora.bench.plan import Plan, PlannedRun, check_budgets, check_task
from iwlora.bench.tables import duration
from iwlora.training.recipe import Recipe
from iwlora.training.run import train

STEPS = 6


def estimate(plan: Plan, jobs: int, announce: Callable[[str], None] = print) -> str:
    """The runs, the budget and the cost of each arm, and the time that all of them take.

    Each arm trains ``STEPS`` steps on its own data, in a folder that is removed again. A run is
    its steps at that pace and what the rest of the short run took: loading, measuring, scoring.
    Raises ``IwloraError`` for what would keep the comparison from beginning.
    """
    budgets = check_budgets(plan)
    check_task(plan)
    rows = len(tasks.load(plan.runs[0].recipe.task, plan.runs[0].seed).splits["train"])
    lines = []
    total = 0.0
    for label in plan.labels:
        runs = [run for run in plan.runs if run.label == label]
        trials = [run for run in plan.trials if run.label == label]
        announce(f"timing {STEPS} steps of {label}")
        step, rest = timed(runs[0].recipe)
        seconds = sum(_seconds(run, rows, step, rest) for run in (*runs, *trials))
        limit = plan.search.max_seconds if plan.search else None
        if limit is not None:
            search = sum(_seconds(run, rows, step, rest) for run in trials)
            seconds -= max(0.0, search - limit)
        total += seconds
        budget = f"{budgets[label]:,} adapter parameters" if label in budgets else "no budget"
        tried = f" + {len(trials)} trials" if trials else ""
        lines.append(
            f"{label}: {len(runs)} runs{tried}, {budget}, {step:.3f} s a step, about "
            f"{duration(seconds)}"
        )
    count = len(plan.runs) + len(plan.trials)
    lines += [
        "",
        f"{count} runs on {plan.runs[0].recipe.task.title}, seeds "
        f"{', '.join(map(str, plan.seeds))}: about {duration(total / jobs)} with {jobs} at once",
    ]
    return "\n".join(lines)


def timed(recipe: Recipe) -> tuple[float, float]:
    """(seconds a step, seconds of a run beside its steps), from a short run."""
    few = recipe.task.model_copy(
        update={"max_train": STEPS * recipe.train.batch_size, "max_validation": 64}
    )
    brief = recipe.train.model_copy(update={"epochs": 1.0, "save_steps": None})
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        short = recipe.model_copy(update={"task": few, "train": brief})
        result = train(short, Path(folder) / "run")
        whole = time.perf_counter() - started
    steps = math.ceil(result["train_examples"] / recipe.train.batch_size)
    return result["train_seconds"] / steps, whole - result["train_seconds"]


def _seconds(run: PlannedRun, rows: int, step: float, rest: float) -> float:
    settings = run.recipe.train
    part = 1 - (run.recipe.task.holdout or 0.0)
    return rest + math.ceil(part * rows / settings.batch_size) * settings.epochs * step
