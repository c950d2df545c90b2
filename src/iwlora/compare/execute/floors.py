"""The floors beside the runs of a comparison: computed once for data and model, after the runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from iwlora import tasks
from iwlora.compare.plan.frozen_layers import skipped_blocks
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.errors import IwloraError, is_of_system
from iwlora.results import layout
from iwlora.results.comparison.floors import ComparisonFloors, PredictedFloor, RunFloors, key
from iwlora.results.durations import format_duration
from iwlora.results.events import Event, Report
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import PROCESSES
from iwlora.results.formats import content_digest
from iwlora.results.run import RunResult, load_run
from iwlora.tasks.floors.floor import Floor
from iwlora.training.floors.frozen_model import frozen_model_floors
from iwlora.training.floors.scores import TaskFloors
from iwlora.training.frozen_layers.run_setting import kept_frozen_layers
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.recipe import Recipe
from iwlora.training.state.fingerprint import row_digests

_NOT_OF_FLOORS = ("recipe", "seed", "numerics", PROCESSES)
"""The parts of a run's fingerprint that its floors do not depend on."""


def write_floors(plan: Plan, folder: Path, announce: Report) -> None:
    """Write the floors beside all finished runs into ``floors.json``, as far as they are not there.

    Runs that an older version finished, without a fingerprint, have none.

    Args:
        plan: The comparison.
        folder: Its folder.
        announce: Gets an event for each data that floors are computed for.

    Raises:
        IwloraError: A file cannot be read or written now; a repeated command goes on.
    """
    stored = ComparisonFloors.of(folder)
    predicted, runs = dict(stored.predicted), dict(stored.runs)
    loaded: dict[str, TaskFloors] = {}
    for run in plan.runs:
        path = run.folder(folder)
        name, file = key(path, folder), path / layout.RESULT
        if not file.is_file():
            continue
        digest = file_digest(file)
        if name in runs and runs[name].result == digest:
            continue
        finished = load_run(path)
        result = finished.result
        if result.fingerprint is None:
            continue
        of_data = _key(run.recipe, result)
        try:
            predictions = finished.prediction_rows()
            if not predictions:
                continue
            if of_data not in loaded:
                loaded[of_data] = _task_floors(run, result, predicted, of_data, folder, announce)
            floors = loaded[of_data]
            predicted[of_data] = [
                PredictedFloor(
                    name=floor.name,
                    trivial=floor.trivial,
                    predictions=[row["prediction"] for row in floor.predictions],
                )
                for floor in floors.floors
            ]
            scores = floors.beside(predictions)
        except IwloraError as error:
            if is_of_system(error):
                raise
            announce(Event("no floors", f"{run} has no floors: {error}", run=str(run)))
            continue
        runs[name] = RunFloors(result=digest, floors=scores)
    if runs != stored.runs:
        ComparisonFloors(predicted=predicted, runs=runs).save(folder / layout.FLOORS)


def _key(recipe: Recipe, result: RunResult) -> str:
    """A digest of what the floors depend on: rows, class names, model, metrics, length."""
    parts = result.fingerprint.parts if result.fingerprint else {}
    inputs = {name: part for name, part in parts.items() if name not in _NOT_OF_FLOORS}
    settings = [recipe.task.group, recipe.train.max_length, recipe.train.frozen_dtype]
    return content_digest([inputs, result.kind, result.task_metrics, settings, recipe.quantize])


def _task_floors(
    run: PlannedRun,
    result: RunResult,
    predicted: dict[str, list[PredictedFloor]],
    of_data: str,
    folder: Path,
    announce: Report,
) -> TaskFloors:
    """The floors for the data of a run; ``IwloraError`` if the data are not what they were."""
    recipe, started = run.recipe, time.perf_counter()
    task = tasks.load(recipe.task, run.seed)
    trained = result.fingerprint.parts if result.fingerprint else {}
    if any(trained.get(part) != now for part, now in row_digests(task).parts.items()):
        raise IwloraError("its data changed since it was trained; restore them and repeat")
    task = replace(task, metrics=tuple(result.task_metrics))
    if of_data in predicted:
        floors = [
            Floor(f.name, [{"prediction": value} for value in f.predictions], f.trivial)
            for f in predicted[of_data]
        ]
        return TaskFloors.of(task, recipe.task.group, floors)
    known = TaskFloors.of(task, recipe.task.group)
    blocks = skipped_blocks(recipe) if (folder / layout.FROZEN_LAYERS).is_dir() else 0

    def kept(model: Any, forward: Callable[[], Any]) -> FrozenLayers | None:
        return kept_frozen_layers(recipe, model, blocks, folder, forward) if blocks else None

    images = folder if (folder / layout.DECODED_IMAGES).is_dir() else None
    of_model = frozen_model_floors(recipe, known, kept, images)
    known = replace(known, floors=[*known.floors, *of_model])
    if known.floors:
        names, seconds = [floor.name for floor in known.floors], time.perf_counter() - started
        on = f"floors on {len(known.rows):,} scored rows ({', '.join(names)})"
        announce(Event("floors", f"{on}: {format_duration(seconds)}", names=names, seconds=seconds))
    return known
