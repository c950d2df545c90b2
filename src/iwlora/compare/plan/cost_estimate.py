"""How long a comparison will take, from a few timed steps of each arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from iwlora.compare.number_format import format_gibibytes
from iwlora.compare.plan.frozen_layers import with_equal_frozen_layers
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import check_budgets, check_search, check_task
from iwlora.compare.plan.search.options import combinations_within
from iwlora.compare.statistics.learning_rate.rules import find_rule
from iwlora.results.durations import format_duration
from iwlora.results.layout import options_text
from iwlora.tasks.loading import reading_once
from iwlora.training.dry_run.run_cost import RunCost, estimate_run_cost
from iwlora.training.recipe import Recipe
from iwlora.training.state.bad_rows import listing_bad_rows


@dataclass(frozen=True)
class EstimatedRun:
    """A run, or a trial of a search, and the seconds that it will take."""

    label: str
    recipe: Recipe
    seconds: float
    trial: bool = False


class Packs(Protocol):
    """What is known of the runs that are trained together, :class:`PacksEstimate`."""

    at_once: int

    def is_packed(self, recipe: Recipe) -> bool: ...

    def run_cost(self, recipe: Recipe, alone: RunCost) -> RunCost: ...

    def lines(self, runs: Sequence[EstimatedRun]) -> list[str]: ...


@reading_once()
def estimate_cost(
    plan: Plan,
    jobs: int,
    announce: Callable[[str], None] = print,
    bad_rows: Path | None = None,
    packs: Packs | None = None,
) -> str:
    """Describe the runs, the budget and the time of each arm, and the time and memory of all.

    A few steps of each arm's first run are timed (:mod:`iwlora.training.dry_run.run_cost`); its
    other runs differ in their number of steps only. Nothing is kept.

    Args:
        plan: The comparison.
        jobs: How many runs there will be at once.
        announce: Gets a line before each arm is timed.
        bad_rows: The file that gets the list of rows that cannot be used, if these are refused.
        packs: Estimates what is trained together, if anything is.

    Raises:
        IwloraError: The comparison could not start.
    """
    budgets = check_budgets(plan)
    plan = with_equal_frozen_layers(plan)
    with listing_bad_rows(bad_rows):
        rows_of_arms, _ = check_task(plan)
    search = check_search(plan)
    recipe = plan.runs[0].recipe
    adaptive = plan.search is not None and find_rule(plan.search.rule).adaptive
    lines, first_draws = dict.fromkeys(plan.labels, ""), len(plan.certain_seeds)
    filled, all_trials, by_arm = set[int](), list[EstimatedRun](), list[list[EstimatedRun]]()
    total, fewest, count, certain = 0.0, 0.0, len(plan.runs), len(plan.labels) * first_draws
    most_memory = 0
    arms = [*zip(plan.first_runs, rows_of_arms, strict=True)]
    if packs:  # first, since a process keeps some of the memory of what it did before
        arms.sort(key=lambda arm: not packs.is_packed(arm[0].recipe))
    for first, rows in arms:
        announce(f"timing steps of {first.label}")
        estimated = estimate_run_cost(first.recipe, in_comparison=True)
        cost = replace(estimated, fill_seconds=0.0)
        if packs and packs.is_packed(first.recipe):
            cost = packs.run_cost(first.recipe, cost)
        else:
            most_memory = max(most_memory, cost.memory.peak)
        of_arm = [run for run in plan.runs if run.label == first.label]
        of_runs = [_seconds(run, rows, cost) for run in of_arm]
        by_arm.append([EstimatedRun(first.label, first.recipe, s) for s in of_runs])
        trials, sure, trial_seconds = 0, 0, 0.0
        if plan.search and search:
            steps = search.of_trial[first.label]
            allowed, grid = search.ceiling // steps, len(plan.search.lr)
            options = {options_text(run.options) for run in plan.trials if run.label == first.label}
            tried = combinations_within(allowed, grid, len(options))
            trials = tried * min(plan.search.most_trials, allowed // tried)
            trial_seconds = trials * (cost.rest + steps * cost.step_seconds)
            trial_seconds = min(trial_seconds, plan.search.max_seconds or math.inf)
            # An adaptive search may end after one draw of the grid with each combination.
            sure = tried * min(grid, allowed // tried) if adaptive else trials
        seconds, least = sum(of_runs) + trial_seconds, sum(of_runs[:first_draws])
        if trials:
            of_trial = trial_seconds / trials
            all_trials += [EstimatedRun(first.label, first.recipe, of_trial, True)] * trials
            least, certain = least + trial_seconds * sure / trials, certain + sure
        # The first arm that skips so many blocks does it for all of these arms.
        if estimated.fill_seconds and estimated.frozen_blocks not in filled:
            draws = (len(plan.seeds), first_draws) if first.recipe.task.max_train else (1, 1)
            filled.add(estimated.frozen_blocks)
            seconds += draws[0] * estimated.fill_seconds
            least += draws[1] * estimated.fill_seconds
        total, fewest, count = total + seconds, fewest + least, count + trials
        parameters = budgets.get(first.label)
        budget = "no budget" if parameters is None else f"{parameters:,} adapter parameters"
        trial_count = f" + {'at most ' if adaptive else ''}{trials} trials" if trials else ""
        from_draws = f"{first_draws} to " if plan.stop else ""
        from_time = f"{format_duration(least)} to " if plan.stop else ""
        run_count = f"{from_draws}{len(of_arm)} runs{trial_count}"
        lines[first.label] = (
            f"{first.label}: {run_count}, {rows:,} training rows, {budget}, "
            f"{cost.step_seconds:.3f} s a step, about {from_time}{format_duration(seconds)}"
        )
    texts = [*lines.values()]
    if search:
        texts.append(f"search: at most {search.ceiling:,} training steps an arm")
    if packs:
        by_draw = [run for draw in zip(*by_arm, strict=True) for run in draw]
        texts += [*packs.lines(all_trials), *packs.lines(by_draw)]
        jobs = packs.at_once
    if most_memory:
        which = "largest run that is not packed" if packs else "largest run"
        texts.append(f"peak memory of the {which}: about {format_gibibytes(most_memory)}")
    what = ("pack" if jobs == 1 else "packs") if packs else ""
    time, end = format_duration(total / jobs), f" with {jobs} {what}".rstrip() + " at once"
    if plan.stop:
        texts.append(
            f"\n{certain} to {count} runs on {recipe.task.title}, {first_draws} to "
            f"{plan.stop.max_seeds} draws of an arm: about {format_duration(fewest / jobs)} to "
            f"{time}{end}; the power, and about how many draws a verdict takes, are printed after "
            f"the first {first_draws}"
        )
    else:
        most, seeds = "at most " if adaptive else "", ", ".join(map(str, plan.seeds))
        texts.append(
            f"\n{most}{count} runs on {recipe.task.title}, seeds {seeds}: {most}about {time}{end}"
        )
    return "\n".join(texts)


def _seconds(run: PlannedRun, rows: int, cost: RunCost) -> float:
    train = run.recipe.train
    steps = train.count_steps(math.ceil(rows / train.batch_size))
    return cost.rest + steps * cost.step_seconds
