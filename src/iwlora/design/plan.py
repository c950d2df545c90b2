"""A stage as a planned comparison: its choices are the arms, its draws the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.design.draws import draw_designs, possible_choices
from iwlora.design.recipe import DesignRecipe
from iwlora.design.stages import LR, Stage
from iwlora.results import layout
from iwlora.results.formats import content_digest


@dataclass(frozen=True)
class StagePlan:
    """The comparison of a stage's choices.

    Args:
        stage: What is chosen, among the choices that are possible.
        plan: Its runs, draw by draw; None where a single choice is possible, or none is needed.
        points: {(label, seed): the design of this run}.
        impossible: {label: why} of the choices that no design can have within the budget.
        redrawn: How many designs were refused and drawn again.
        folder: Below that of the search; its name has a digest of what earlier stages found.
    """

    stage: Stage
    plan: Plan | None
    points: Mapping[tuple[str, int], Mapping[str, Any]]
    impossible: Mapping[str, str]
    redrawn: int
    folder: Path

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """The most that there can be."""
        return self.plan.runs if self.plan else ()


def plan_stage(
    design: DesignRecipe, stage: Stage, fixed: Mapping[str, Any], lr: float | None
) -> StagePlan:
    """Plan a stage; the same arguments give the same plan.

    Args:
        design: The search.
        stage: One of its stages.
        fixed: What is known of the design, as :class:`iwlora.design.draws.DrawSettings` has it.
        lr: The learning rate; None: the stage chooses it.

    Raises:
        IwloraError: No design lies within 5% of the budget.
    """
    settings = design.settings
    known = plain({"fixed": fixed, "lr": lr})
    folder = layout.stage_folder(Path(), stage.name, content_digest(known))
    if stage.has_no_choice(fixed.get("tuned", "all")):
        return StagePlan(stage, None, {}, {}, 0, folder)
    draws = design.draw_settings(fixed)
    stage, impossible = possible_choices(stage, draws)
    most = design.draws_of(stage)[1]
    if len(stage.choices) == 1 and stage.search not in ("screen", "grid"):
        return StagePlan(stage, None, {}, impossible, 0, folder)
    runs, points, redrawn = list[PlannedRun](), dict[tuple[str, int], Mapping[str, Any]](), 0
    task = design.run.task.model_copy(update={"holdout": settings.holdout})
    for number in range(most):
        seed = stage.seed(settings.seed, number)
        drawn = draw_designs(stage, number, draws)
        redrawn += drawn.redrawn
        for label, point in drawn.points.items():
            own_lr = stage.choices[label] if stage.component == LR else lr
            recipe = design.designs.recipe(point, seed=seed, lr=own_lr)
            recipe = recipe.model_copy(update={"task": task, "label": label})
            runs.append(PlannedRun(label, seed, recipe))
            points[label, seed] = plain(point)
    recorded = {"stage": stage.name, **known, "choices": plain(stage.choices)}
    # Each design is within 5% of the budget, so two of them may differ by more.
    plan = Plan({**recorded, "unequal_budgets": True}, tuple(runs))
    if stage.search == "race":
        plan = replace(plan, race=settings.race)
    return StagePlan(stage, plan, points, impossible, redrawn, folder)


def plain(value: Any) -> Any:
    """The value with lists in the place of tuples, as files hold it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
