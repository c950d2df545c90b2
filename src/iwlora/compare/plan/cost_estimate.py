"""How long a comparison will take, from a few timed steps of each arm."""

from __future__ import annotations

import math
from collections.abc import Callable

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import check_budgets, check_task
from iwlora.results.durations import format_duration
from iwlora.training.dry_run.run_cost import RunCost, estimate_run_cost


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
    rows_of_arms, _ = check_task(plan)
    recipe = plan.runs[0].recipe
    lines = []
    total = 0.0
    for first, rows in zip(plan.first_runs, rows_of_arms, strict=True):
        announce(f"timing steps of {first.label}")
        cost = estimate_run_cost(first.recipe)
        runs, trials = (
            [_seconds(run, rows, cost) for run in group if run.label == first.label]
            for group in (plan.runs, plan.trials)
        )
        limit = plan.search.max_seconds if plan.search else None
        seconds = sum(runs) + min(sum(trials), math.inf if limit is None else limit)
        total += seconds
        parameters = budgets.get(first.label)
        budget = "no budget" if parameters is None else f"{parameters:,} adapter parameters"
        trial_count = f" + {len(trials)} trials" if trials else ""
        run_count = f"{'at most ' if plan.stop else ''}{len(runs)} runs{trial_count}"
        lines.append(
            f"{first.label}: {run_count}, {rows:,} training rows, {budget}, "
            f"{cost.step_seconds:.3f} s a step, about {format_duration(seconds)}"
        )
    seeds = ", ".join(map(str, plan.seeds))
    most, end = "", ""
    if plan.stop:
        most, seeds = "at most ", f"0 to {plan.seeds[-1]}"
        end = f"; the power is printed after the first {len(plan.certain_seeds)} seeds"
    lines.append(
        f"\n{most}{len(plan.runs) + len(plan.trials)} runs on {recipe.task.title}, seeds {seeds}: "
        f"{most}about {format_duration(total / jobs)} with {jobs} at once{end}"
    )
    return "\n".join(lines)


def _seconds(run: PlannedRun, rows: int, cost: RunCost) -> float:
    train = run.recipe.train
    train_rows = rows * (1 - (run.recipe.task.holdout or 0.0))
    steps = train.count_steps(math.ceil(train_rows / train.batch_size))
    return cost.rest + steps * cost.step_seconds
