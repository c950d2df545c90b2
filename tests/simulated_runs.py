"""Comparisons whose runs take no time: an executor that writes results instead of training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from iwlora.compare.execute.comparison import run_comparison
from iwlora.compare.execute.executor import Executor
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.training.recipe import Recipe, load


def best_at_1e_3(recipe: Recipe) -> float:
    """A score that is best at a learning rate of 1e-3, the same for every method and seed."""
    return 0.9 - 0.1 * abs(math.log10(recipe.train.lr) + 3)


def result_of(recipe: Recipe, score: float, seconds: float = 10.0) -> dict[str, Any]:
    """What ``result.json`` of a run would hold."""
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


class SimulatedExecutor(Executor):
    """Runs ``jobs`` at a time; ``outcome`` gives a score, or an exit code for a failure.

    ``outcome`` gets the recipe and how many times the run has been started.
    """

    def __init__(
        self,
        outcome: Callable[[Recipe, int], float | int] = lambda recipe, _: best_at_1e_3(recipe),
        jobs: int = 1,
        seconds: float = 10.0,
    ) -> None:
        self.outcome, self.jobs, self.seconds = outcome, jobs, seconds
        self.running: list[Path] = []
        self.started: list[Path] = []
        self.stopped = False

    def has_capacity(self, bytes_needed: int) -> bool:
        return len(self.running) < self.jobs

    def start(self, folder: Path, log: Path) -> None:
        assert folder not in self.running
        self.running.append(folder)
        self.started.append(folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("error: out of luck\n")

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        folder = self.running.pop(0)
        recipe = load(str(folder / "recipe.yaml"))
        outcome = self.outcome(recipe, self.started.count(folder))
        if isinstance(outcome, int):
            return [(folder, outcome)]
        result = result_of(recipe, outcome, self.seconds)
        (folder / "result.json").write_text(json.dumps(result))
        return [(folder, 0)]

    def stop(self) -> None:
        self.stopped = True


def simulate(plan: Plan, folder: Path, executor: Executor) -> tuple[list[PlannedRun], list[str]]:
    """(the runs that failed, what was announced)."""
    announced: list[str] = []

    def make_executor(_: IO[str]) -> Executor:
        return executor

    return run_comparison(plan, folder, make_executor, announced.append), announced
