"""What a search will cost, stage by stage, from a few timed steps of some of its designs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from iwlora.compare.number_format import counted, format_gibibytes
from iwlora.compare.report.text_columns import align
from iwlora.design.confirmation import confirmation
from iwlora.design.draws import draw_designs
from iwlora.design.recipe import DesignRecipe
from iwlora.results.durations import format_duration
from iwlora.tasks.loading import reading_once
from iwlora.training.dry_run.run_cost import estimate_run_cost

TIMED = 3
"""Random designs whose steps are timed; the others are taken to be like their mean."""


@reading_once()
def estimate_cost(design: DesignRecipe, jobs: int, announce: Callable[[str], None] = print) -> str:
    """Describe the runs and the time of each stage, and of independent designs beside them.

    Args:
        design: The search.
        jobs: How many runs there will be at once.
        announce: Gets a line before each design is timed.

    Raises:
        IwloraError: The search could not start.
    """
    seconds, memory = [], 0
    settings, stage = design.settings, design.stages[-1]
    task = design.run.task.model_copy(update={"holdout": settings.holdout})
    for number in range(TIMED):
        announce(f"timing steps of random design {number + 1} of {TIMED}")
        where = (design.space, design.fixed, settings.seed, design.designs)
        drawn = draw_designs(stage, number, *where)
        recipe = design.designs.recipe(next(iter(drawn.points.values())))
        cost = estimate_run_cost(recipe.model_copy(update={"task": task}), in_comparison=True)
        seconds.append(cost.seconds - cost.fill_seconds)
        memory = max(memory, cost.memory.peak)
    of_run = fmean(seconds) / jobs
    table = [["stage", "choices", "runs", "time"]]
    fewest = most = 0
    for stage in design.stages:
        low, high = design.runs_of(stage)
        fewest, most = fewest + low, most + high
        table.append([stage.name, str(len(stage.choices)), *_range(low, high, of_run)])
    table.append(["all", "", *_range(fewest, most, of_run)])
    paper = design.paper_runs
    lines = align([list(column) for column in zip(*table, strict=True)])
    lines += [
        "",
        f"a run takes about {format_duration(fmean(seconds))} "
        f"({format_duration(min(seconds))} to {format_duration(max(seconds))} in {TIMED} random "
        f"designs); peak memory about {format_gibibytes(memory)}",
        f"independent designs for each choice would be {counted(paper, 'run')}, about "
        f"{format_duration(paper * of_run)}",
    ]
    if (plan := confirmation(design.confirm, recipe)) is not None:
        certain, arms = len(plan.certain_seeds), len(plan.labels)
        trials = f" and at most {len(plan.trials):,} trials" if plan.trials else ""
        lines.append(
            f"confirmation: {arms} arms, {certain * arms:,} to {len(plan.runs):,} runs{trials} on "
            f"all training rows; iwlora compare --dry-run of {design.run.model} prices them"
        )
    return "\n".join(lines)


def _range(fewest: int, most: int, seconds: float) -> list[str]:
    """The runs and their time, from the fewest to the most."""
    if fewest == most:
        return [f"{most:,}", format_duration(most * seconds)]
    times = f"{format_duration(fewest * seconds)} to {format_duration(most * seconds)}"
    return [f"{fewest:,} to {most:,}", times]
