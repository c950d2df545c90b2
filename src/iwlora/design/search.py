"""Executes a search of designs: stage after stage, then the comparison with other methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from iwlora.compare.execute.comparison import lock_folder
from iwlora.compare.plan.planned_runs import Plan
from iwlora.design.confirmation import check_data, confirmation
from iwlora.design.decisions import Decision, decide, no_choice, only_choice
from iwlora.design.draws import strategies_key, with_fixed
from iwlora.design.effects import strategy_effects
from iwlora.design.plan import StagePlan, plain, plan_stage
from iwlora.design.proxies.table import proxy_summaries
from iwlora.design.recipe import DesignRecipe, with_defaults
from iwlora.design.settings import WIDENED
from iwlora.design.stages import LR, Stage
from iwlora.errors import IwloraError, raise_all
from iwlora.results import layout
from iwlora.results.comparison.designs import (
    DesignRecord,
    DesignSummary,
    DrawnRun,
    GrowingNumbers,
    LayerMeasurements,
    StageSummary,
)
from iwlora.results.comparison.record import RaceRule
from iwlora.results.events import Event, Report
from iwlora.results.run import SiteRank, load_run
from iwlora.results.writing import output_folder, write_text
from iwlora.training.recipe import Recipe

Measure = Callable[[DesignRecipe, Path], LayerMeasurements]
"""Measures the layers of the frozen model; the file is for rows that cannot be used."""


class Compare(Protocol):
    """Executes what is not done yet of a comparison; returns whether some runs have no result."""

    def __call__(self, plan: Plan, folder: Path, is_reported: bool) -> bool: ...


def run_design(
    design: DesignRecipe,
    out: str | os.PathLike[str],
    compare: Compare,
    announce: Report = print,
    measure: Measure | None = None,
) -> DesignSummary:
    """Execute what is not done yet of a search.

    Args:
        design: The search.
        out: Its folder. A search that ended goes on there with more draws.
        compare: Executes the comparison of a stage's choices, and the one that confirms.
        announce: Gets one line for each event.
        measure: Measures the layers of the frozen model, once; None: the summary has no proxies.

    Returns:
        What the stages decided, which is in ``summary.json`` too.

    Raises:
        IwloraError: The folder belongs to another search, or a stage has no score at all.
    """
    folder = output_folder(out, "search")
    check_folder(design, folder)
    with lock_folder(folder, announce):
        check_data(design.confirm, design.run, folder / layout.BAD_ROWS)
        design.record().save(folder / layout.DESIGN)
        first = design.stages[0]
        summary = DesignSummary(
            model=design.run.model,
            task=design.run.task.title,
            paper_runs=design.paper_runs,
            lr=None if first.component == LR else float(design.settings.lr),  # type: ignore[arg-type]
        )
        measured = _measured(design, folder, measure, announce) if measure else None
        fixed = dict(design.fixed)
        for stage in design.stages:
            summary = _with_stage(design, stage, summary, fixed, folder, compare, announce)
            summary = _with_totals(design, summary, measured, folder)
            summary.save(folder / layout.SUMMARY_JSON)
        found = found_recipe(design, summary, fixed)
        summary = summary.model_copy(update={"found": plain(_point(design, fixed))})
        write_text(folder / layout.FOUND, found.to_yaml())
        text = f"the found design is in {folder / layout.FOUND}"
        announce(Event("found", text, path=str(folder / layout.FOUND)))
        summary.save(folder / layout.SUMMARY_JSON)
        if (plan := confirmation(design.confirm, found)) is not None:
            announce(Event("stage", "confirmation: the found design and other methods"))
            inside = layout.stage_folder(Path(), "confirm", found.digest())
            if not compare(plan, folder / inside, is_reported=True):
                summary = summary.model_copy(update={"confirmation": inside.as_posix()})
                summary.save(folder / layout.SUMMARY_JSON)
    return summary


def check_folder(design: DesignRecipe, folder: Path) -> None:
    """Check that a folder is empty or holds this search, perhaps with fewer draws.

    Raises:
        IwloraError: It holds something else.
    """
    file = folder / layout.DESIGN
    if not file.is_file():
        inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if other := inside - {layout.LOCK, layout.BAD_ROWS}:
            raise IwloraError(
                f"{folder} holds {min(other)} and no search of designs; choose another folder"
            )
        return
    stored, now = DesignRecord.load(file), design.record()
    try:
        before = {**stored.space.model_dump(), "run": with_defaults(stored.space.run)}
    except IwloraError as error:
        raise_all([f"{file}: space.run: {line}" for line in str(error).splitlines()])
    problems = [*_growth_problems(stored.growing, now.growing, folder)]
    if differing := sorted(_differing(before, now.space.model_dump())):
        problems.append(
            f"{folder} holds a search of another space: {', '.join(differing)} differ; only "
            "design.draws, models and designs may grow; choose another folder"
        )
    raise_all(problems)


def _differing(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of the settings that differ."""
    names = []
    for key in {**stored, **now}:
        before, after = stored.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            names += _differing(before, after, f"{prefix}{key}.")
        elif plain(before) != plain(after):
            names.append(f"{prefix}{key}")
    return names


def _growth_problems(stored: GrowingNumbers, now: GrowingNumbers, folder: Path) -> Iterator[str]:
    if not RaceRule(draws=stored.draws).goes_on(RaceRule(draws=now.draws)):
        yield (
            f"design.draws={now.draws}: {folder} has {stored.draws}, to which numbers may "
            "only be added, because what was promised holds for these looks"
        )
    for key in ("models", "designs"):
        before, after = getattr(stored, key), getattr(now, key)
        if after < before:
            yield f"design.{key}={after}: {folder} has {before}; it may only grow"


def _with_stage(
    design: DesignRecipe,
    stage: Stage,
    summary: DesignSummary,
    fixed: dict[str, Any],
    folder: Path,
    compare: Compare,
    announce: Report,
) -> DesignSummary:
    """Execute a stage, add what it decided to ``fixed``; returns the summary with it."""
    planned = plan_stage(design, stage, fixed, summary.lr)
    has_no_choice = stage.has_no_choice(fixed.get("tuned", "all"))
    choices = "no choice" if has_no_choice else ", ".join(stage.choices)
    announce(Event("stage", f"{stage.name}: {choices}", stage=stage.name))
    for label, why in planned.impossible.items():
        announce(Event("impossible", f"{stage.name}: {label} is left out: {why}", label=label))
    settings, stage = design.settings, planned.stage
    runs, metric = list[DrawnRun](), summary.metric
    if planned.plan is None:
        decided = no_choice(stage) if has_no_choice else only_choice(stage)
    else:

        def is_possible(strategies: tuple[tuple[str, ...], ...]) -> bool:
            return (
                design.designs.refusal(_point(design, {**fixed, "assignment": strategies})) is None
            )

        def decide_from(runs: list[DrawnRun], metric: str) -> Decision:
            return decide(stage, runs, metric, settings.race, settings.groups, is_possible)

        compare(planned.plan, folder / planned.folder, is_reported=False)
        runs, metric = _finished(planned, folder)
        if metric is None:
            raise IwloraError(f"{stage.name}: no run has a score; see {folder / planned.folder}")
        decided = decide_from(runs, metric)
        for _ in range(WIDENED):
            if decided.beyond is None:
                break
            wider = stage.beyond(decided.beyond)
            announce(Event("stage", f"{stage.name}: {wider.name} too", stage=stage.name))
            added = plan_stage(design, wider, fixed, None)
            assert added.plan is not None, "a learning rate is tried even if it is the only one"
            compare(added.plan, folder / added.folder, is_reported=False)
            runs += _finished(added, folder)[0]
            stage = replace(stage, choices={**stage.choices, **wider.choices})
            decided = decide_from(runs, metric)
    if stage.component == LR:
        summary = summary.model_copy(update={"lr": decided.value})
    elif stage.group is None:
        fixed[stage.component] = decided.value
    else:
        fixed[strategies_key(stage.group)] = decided.value
    announce(Event("decision", f"{stage.name}: {decided.found}", stage=stage.name))
    ended = StageSummary(
        name=stage.name,
        component=stage.component,
        group=None if stage.group is None else stage.group + 1,
        search=stage.search,
        verdict=decided.verdict,
        found=decided.found,
        value=plain(decided.value),
        race=settings.race if stage.search == "race" else None,
        impossible=dict(planned.impossible),
        redrawn=planned.redrawn,
        folder=planned.folder.as_posix(),
        choices=decided.choices,
        runs=runs,
        effects=decided.effects,
    )
    return summary.model_copy(update={"stages": [*summary.stages, ended], "metric": metric})


def _measured(
    design: DesignRecipe,
    folder: Path,
    measure: Measure,
    announce: Report,
) -> LayerMeasurements:
    """What the folder has of it, or else what is measured now."""
    file = folder / layout.PROXIES
    if file.is_file():
        return LayerMeasurements.load(file)
    announce(Event("measuring", "the layers of the frozen model are measured, for the proxies"))
    measured = measure(design, folder / layout.BAD_ROWS)
    measured.save(file)
    return measured


def _with_totals(
    design: DesignRecipe,
    summary: DesignSummary,
    measured: LayerMeasurements | None,
    folder: Path,
) -> DesignSummary:
    """The summary with what all its designs together say."""
    metric, stages = summary.metric, [each for each in summary.stages if each.component != LR]
    if metric is None:
        return summary
    runs = [(stage.name, run) for stage in stages for run in stage.runs]
    known: dict[str, Any] = {"effects": strategy_effects(runs, metric, design.settings.error)}
    if measured:

        def parts_of(run: DrawnRun) -> Sequence[SiteRank]:
            if run.point["allocation"] == "importance":  # the run measured it
                return load_run(folder / run.folder).result.ranks
            return design.designs.part_records(run.point)

        known["proxies"] = proxy_summaries(runs, metric, parts_of, measured)
    return summary.model_copy(update=known)


def _finished(planned: StagePlan, folder: Path) -> tuple[list[DrawnRun], str | None]:
    """The runs of a stage that have ended, draw by draw, and the name of their score."""
    runs, metric = [], None
    first = planned.runs[0].seed
    for run in planned.runs:
        path = run.folder(folder / planned.folder)
        if not path.exists():  # of a choice that was dropped before this draw
            continue
        known: dict[str, Any] = {}
        if (path / layout.RESULT).is_file():
            result = load_run(path).result
            metric = result.primary_metric
            known = {
                "score": result.score,
                "loss": result.metrics.get("loss"),
                "adapter_parameters": result.adapter_parameters,
                "seconds": result.total_seconds,
            }
        runs.append(
            DrawnRun(
                choice=run.label,
                draw=run.seed - first,
                seed=run.seed,
                point=dict(planned.points[run.label, run.seed]),
                folder=path.relative_to(folder).as_posix(),
                **known,
            )
        )
    return runs, metric


def _point(design: DesignRecipe, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The design in which everything is fixed."""
    empty = {"groups": None, "allocation": "uniform", "tuned": "all"}
    return with_fixed({**empty, "strategies": ((),) * design.space.groups}, fixed)


def found_recipe(design: DesignRecipe, summary: DesignSummary, fixed: Mapping[str, Any]) -> Recipe:
    """The recipe of the found design, for the data that are reported.

    Raises:
        IwloraError: No such design lies within 5% of the budget.
    """
    point = _point(design, fixed)
    if why := design.designs.refusal(point):
        raise IwloraError(f"the found design cannot be trained: {why}")
    return design.designs.recipe(point, lr=summary.lr)
