"""Searches of designs whose runs take no time: their scores are planted."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iwlora.compare.execute.scheduling.racing import Racing
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.results.comparison.designs import DesignSummary, DrawnRun, StageSummary
from iwlora.results.run import load_run
from simulated_runs import result_of

Score = Callable[[PlannedRun], float]


def ended_search(runs: Sequence[DrawnRun], folder: str, paper_runs: int = 1) -> DesignSummary:
    """The summary of a search whose one stage, in this folder, ended with these runs, and open."""
    stage = StageSummary(
        name="grouping",
        component="grouping",
        search="race",
        verdict="open",
        found="spindle",
        value="spindle",
        folder=folder,
        choices=[],
        runs=[*runs],
    )
    return DesignSummary(model="m", task="t", paper_runs=paper_runs, stages=[stage])


class Killed(BaseException):
    """Stands for a signal that ends the process."""


def planted(bonus: Mapping[str, float], noise: float = 0.002) -> Score:
    """Scores of runs: what its draw and its noise add, and the bonus of each of its choices."""

    def score(run: PlannedRun) -> float:
        method: Any = run.recipe.method
        draw = np.random.default_rng(run.seed).normal(0, 0.03)
        own = np.random.default_rng([run.seed, zlib.crc32(run.label.encode())])
        names = [str(method.groups), str(method.allocation), str(method.tuned)]
        return 0.7 + draw + own.normal(0, noise) + sum(bonus.get(name, 0.0) for name in names)

    return score


class PlantedRuns:
    """Executes the comparisons of a search: the runs that a race needs, draw by draw.

    Args:
        score: Of a run.
        most: After so many runs the process is killed.
    """

    def __init__(self, score: Score, most: int | None = None) -> None:
        self.score, self.most = score, most
        self.started: list[Path] = []
        self.plans: dict[str, Plan] = {}

    def __call__(self, plan: Plan, folder: Path, is_reported: bool) -> bool:
        self.plans[folder.name] = plan
        race = Racing(plan.race, plan.labels, plan.seeds) if plan.race else None
        for run in plan.runs:
            if race and not race.needs(run.label, run.seed):
                continue
            assert race is None or race.may_begin(run.seed)
            path = run.folder(folder)
            if not (path / "result.json").exists():
                if len(self.started) == self.most:
                    raise Killed
                self.started.append(path)
                path.mkdir(parents=True, exist_ok=True)
                result = result_of(run.recipe, self.score(run))
                (path / "result.json").write_text(json.dumps(result))
            if race:
                race.ended(run.label, run.seed, load_run(path))
        return False
