"""What a comparison will take, from a few timed steps of each arm; nothing is kept."""

from __future__ import annotations

import math
from collections.abc import Callable

from iwlora import tasks
from iwlora.compare.number_format import format_duration
from iwlora.compare.plan.recipe import Plan, PlannedRun, check_budgets, check_task
from iwlora.training.dry_run.cost import estimate as estimate_run


def estimate(plan: Plan, jobs: int, announce: Callable[[str], None] = print) -> str:
    """The runs, the budget and the cost of each arm, and the time that all of them take.

    The cost of each arm's first run comes from :func:`iwlora.training.dry_run.cost.estimate`;
    its other runs differ in their number of steps only. Raises ``IwloraError``
    for what would keep the comparison from beginning.
    """
    budgets = check_budgets(plan)
    check_task(plan)
    rows = len(tasks.load(plan.runs[0].recipe.task, plan.runs[0].seed).splits["train"])
    lines = []
    total = 0.0
    for label in plan.labels:
        runs = [run for run in plan.runs if run.label == label]
        trials = [run for run in plan.trials if run.label == label]
        announce(f"timing steps of {label}")
        one = estimate_run(runs[0].recipe)
        step, rest = one.step_seconds, one.rest
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
            f"{format_duration(seconds)}"
        )
    seeds = ", ".join(map(str, plan.seeds))
    count = len(plan.runs) + len(plan.trials)
    lines += [
        "",
        f"{count} runs on {plan.runs[0].recipe.task.title}, seeds {seeds}: "
        f"about {format_duration(total / jobs)} with {jobs} at once",
    ]
    return "\n".join(lines)


def _seconds(run: PlannedRun, rows: int, step: float, rest: float) -> float:
    settings = run.recipe.train
    part = 1 - (run.recipe.task.holdout or 0.0)
    return rest + math.ceil(part * rows / settings.batch_size) * settings.epochs * step
