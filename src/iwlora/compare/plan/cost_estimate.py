"""How long a comparison will take, from a few timed steps of each arm."""

from __future__ import annotations

import math
from collections.abc import Callable

from iwlora import tasks
from iwlora.compare.number_format import format_duration
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import check_budgets, check_task
from iwlora.training.dry_run.run_cost import estimate_run_cost


def estimate_cost(plan: Plan, jobs: int, announce: Callable[[str], None] = print) -> str:
    """Describe the runs, the budget and the time of each arm, and the time that all take.

    A few steps of each arm's first run are timed (:mod:`iwlora.training.dry_run.run_cost`); its
    other runs differ in their number of steps only. Nothing is kept.

    Args:
        plan: The comparison.
        jobs: How many runs there will be at once.
        announce: Gets a line before each arm is timed.

    Raises:
        IwloraError: The comparison could not start.
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
        cost = estimate_run_cost(runs[0].recipe)
        seconds = sum(_seconds(run, rows, cost.step_seconds, cost.rest) for run in runs)
        search = sum(_seconds(run, rows, cost.step_seconds, cost.rest) for run in trials)
        limit = plan.search.max_seconds if plan.search else None
        seconds += search if limit is None else min(search, limit)
        total += seconds
        budget = f"{budgets[label]:,} adapter parameters" if label in budgets else "no budget"
        trial_count = f" + {len(trials)} trials" if trials else ""
        lines.append(
            f"{label}: {len(runs)} runs{trial_count}, {budget}, {cost.step_seconds:.3f} s a step, "
            f"about {format_duration(seconds)}"
        )
    seeds = ", ".join(map(str, plan.seeds))
    count = len(plan.runs) + len(plan.trials)
    lines += [
        "",
        f"{count} runs on {plan.runs[0].recipe.task.title}, seeds {seeds}: "
        f"about {format_duration(total / jobs)} with {jobs} at once",
    ]
    return "\n".join(lines)


def _seconds(run: PlannedRun, rows: int, step_seconds: float, other_seconds: float) -> float:
    train = run.recipe.train
    train_rows = rows * (1 - (run.recipe.task.holdout or 0.0))
    return other_seconds + math.ceil(train_rows / train.batch_size) * train.epochs * step_seconds
