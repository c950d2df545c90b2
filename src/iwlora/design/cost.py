"""What a search will cost, stage by stage, from a few timed steps of some of its designs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from iwlora.compare.number_format import counted, format_gibibytes
from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.preflight import check_search
from iwlora.compare.report.text_columns import align
from iwlora.design.confirmation import confirmation
from iwlora.design.draws import draw_designs, possible_choices
from iwlora.design.recipe import DesignRecipe
from iwlora.design.stages import Stage
from iwlora.results.durations import format_duration
from iwlora.tasks.loading import read_in_advance, reading_once
from iwlora.training.dry_run.run_cost import RunCost, estimate_run_cost
from iwlora.training.recipe import Recipe

TIMED = 3
"""Random designs whose steps are timed; the others are taken to be like their mean."""


@dataclass(frozen=True)
class _Timed:
    """The cost of a run, and the cores that it kept busy while it was timed, on average."""

    cost: RunCost
    cores: float

    @property
    def seconds(self) -> float:
        """Of a run that finds what frozen blocks compute."""
        return self.cost.seconds - self.cost.fill_seconds

    @property
    def processor_seconds(self) -> float:
        """Of all cores together: these are the same on a machine that other programs use too."""
        return self.seconds * self.cores


@dataclass(frozen=True)
class _Row:
    """The fewest and the most runs of a stage, or of the confirmation, and what each takes."""

    name: str
    choices: int
    runs: tuple[int, int]
    seconds: float
    processor_seconds: float


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
    settings, draws = design.settings, design.draw_settings(design.fixed)
    stages, left_out = list[Stage](), list[str]()
    for stage in design.stages:
        possible, impossible = possible_choices(stage, draws)
        stages.append(possible)
        left_out += [
            f"{stage.name}: {label} is left out: {why}" for label, why in impossible.items()
        ]
    task = design.run.task.model_copy(update={"holdout": settings.holdout})
    timed = []
    for number in range(TIMED):
        announce(f"timing steps of random design {number + 1} of {TIMED}")
        drawn = draw_designs(stages[-1], number, draws)
        recipe = design.designs.recipe(next(iter(drawn.points.values())))
        timed.append(_time(recipe.model_copy(update={"task": task})))
    seconds = [each.seconds for each in timed]
    of_run, of_cores = fmean(seconds), fmean(each.processor_seconds for each in timed)
    rows = [
        _Row(stage.name, stage.count, design.runs_of(stage), of_run / jobs, of_cores)
        for stage in stages
    ]
    if (plan := confirmation(design.confirm, recipe)) is not None:
        rows += _confirming(plan, jobs, announce)
    memory = format_gibibytes(max(each.cost.memory.peak for each in timed))
    paper = design.paper_runs
    lines = [
        *_table(rows),
        "",
        *left_out,
        f"a run takes about {format_duration(of_run)} ({format_duration(min(seconds))} to "
        f"{format_duration(max(seconds))} in {TIMED} random designs), "
        f"{format_duration(of_cores)} of processor time; peak memory about {memory}",
        f"with independent designs for each choice, as in the paper, there would be "
        f"{counted(paper, 'run')}, about {format_duration(paper * of_run / jobs)}",
    ]
    return "\n".join(lines)


def _table(rows: Sequence[_Row]) -> list[str]:
    """Aligned lines: a row for each stage, and their sums."""
    table = [["stage", "choices", "runs", "time", "processor time"]]
    every = []
    for row in rows:
        costs = (1.0, row.seconds, row.processor_seconds)
        every.append([[count * cost for count in row.runs] for cost in costs])
        table.append([row.name, f"{row.choices:,}", *_ranges(every[-1])])
    sums = [[sum(row[kind][end] for row in every) for end in (0, 1)] for kind in range(3)]
    table.append(["all", "", *_ranges(sums)])
    return align([list(column) for column in zip(*table, strict=True)])


def _ranges(row: Sequence[Sequence[float]]) -> list[str]:
    """The runs, the time and the processor time, each from the fewest to the most."""
    runs, *times = row
    texts = [[f"{round(end):,}" for end in runs], *([*map(format_duration, t)] for t in times)]
    return [most if fewest == most else f"{fewest} to {most}" for fewest, most in texts]


def _time(recipe: Recipe) -> _Timed:
    read_in_advance(recipe.task)  # as runs find it, all but the first
    cores, clock = time.process_time(), time.perf_counter()
    cost = estimate_run_cost(recipe, in_comparison=True)
    return _Timed(cost, (time.process_time() - cores) / (time.perf_counter() - clock))


def _confirming(plan: Plan, jobs: int, announce: Callable[[str], None]) -> Iterator[_Row]:
    """The runs of the confirmation, and the trials of its learning rates."""
    ends = len(plan.certain_seeds) * len(plan.labels), len(plan.runs)
    kinds = [("confirmation", plan.runs[0].recipe, ends)]
    if plan.search and (search := check_search(plan)):
        # One draw of the grid may be enough for each arm.
        most = sum(search.ceiling // steps for steps in search.of_trial.values())
        ends = len(plan.search.lr) * len(plan.labels), most
        kinds.append(("trials of its learning rates", plan.trials[0].recipe, ends))
    for name, recipe, ends in kinds:
        announce(f"timing steps of the {name}")
        timed = _time(recipe)
        costs = timed.seconds / jobs, timed.processor_seconds
        yield _Row(name, len(plan.labels), ends, *costs)
