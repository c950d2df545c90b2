"""Comparisons whose runs take no time: an executor that writes results instead of training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from iwlora.compare.execute.local import Executor
from iwlora.compare.execute.scheduler import compare
from iwlora.compare.plan.recipe import Plan, PlannedRun
from iwlora.training.recipe import Recipe, load


def scored(recipe: Recipe) -> float:
    """Best at a learning rate of 1e-3, the same for every method and seed."""
    return 0.9 - 0.1 * abs(math.log10(recipe.train.lr) + 3)


def finished(recipe: Recipe, score: float, seconds: float = 10.0) -> dict[str, Any]:
    """What ``result.json`` of a run would say."""
    return {
        "method": recipe.method.name,
        "label": recipe.label,
        "model": recipe.model,
        "task": recipe.task.title,
        "seed": recipe.train.seed,
        "metrics": {"accuracy": score, "loss": 1 - score},
        "primary_metric": "accuracy",
        "evaluated_on": "validation",
        "selected_on": "last checkpoint",
        "trainable_parameters": 100,
        "adapter_parameters": 90,
        "head_parameters": 10,
        "train_seconds": seconds,
        "measure_seconds": 0.0,
        "examples_per_second": 5.0,
        "peak_memory_bytes": 1000,
        "train_examples": 5,
        "epochs": 1.0,
        "learning_rate": recipe.train.lr,
        "rank": 4,
    }


class Pretend(Executor):
    """Ends ``jobs`` runs at a time; ``behave`` gives a score, or an exit code for a failure."""

    def __init__(
        self, behave: Callable[[Recipe, int], float | int], jobs: int = 1, seconds: float = 10.0
    ) -> None:
        self.behave, self.jobs, self.seconds = behave, jobs, seconds
        self.running: list[Path] = []
        self.started: list[Path] = []
        self.stopped = False

    def room(self, bytes_needed: int) -> bool:
        return len(self.running) < self.jobs

    def start(self, place: Path, log: Path) -> None:
        assert place not in self.running
        self.running.append(place)
        self.started.append(place)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("error: out of luck\n")

    def ended(self, timeout: float) -> list[tuple[Path, int]]:
        place = self.running.pop(0)
        recipe = load(str(place / "recipe.yaml"))
        found = self.behave(recipe, self.started.count(place))
        if isinstance(found, int):
            return [(place, found)]
        (place / "result.json").write_text(json.dumps(finished(recipe, found, self.seconds)))
        return [(place, 0)]

    def stop(self) -> None:
        self.stopped = True


def carry_out(plan: Plan, folder: Path, executor: Executor) -> tuple[list[PlannedRun], list[str]]:
    """(the runs that failed, what was announced)."""
    told: list[str] = []

    def made(_: IO[str]) -> Executor:
        return executor

    return compare(plan, folder, made, told.append), told
