"""The stored scores of a cell: one compressed JSON file, from which every table is made."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iwlora.errors import IwloraError
from iwlora.results.comparison.record import LearningRateChoice
from iwlora.results.run import FloorScore

ENDING = ".json.gz"


class StoredRun(BaseModel):
    """A reported run, or one that was lost: then ``state`` is not "done" and it has no metrics.

    Args:
        arm: Its label.
        seed: Its draw.
        state: "done", "diverged" or "failed".
        metrics: {metric: value} on the study rows, and on the official split with that name.
            ``calibration_error`` is the ECE; names in ``_rescaled`` are those of the same
            predictions divided by a temperature that the official split chose.
        trivial_floors: What a rule that learned nothing scores, and by how much the run is better.
        adapter_parameters: Those of the saved adapter.
        seconds: Wall time of measuring and training.
        digests: {input: digest} of what it was computed from, with the version of the numerics.
        notes: What a reader must know about the run.
    """

    model_config = ConfigDict(extra="forbid")

    arm: str
    seed: int
    state: str = "done"
    lr: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    trivial_floors: list[FloorScore] = Field(default_factory=list)
    trainable_parameters: int | None = None
    adapter_parameters: int | None = None
    one_answer: bool = False
    seconds: float | None = None
    digests: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class CellScores(BaseModel):
    """What a cell has found so far.

    Args:
        cell: Its name.
        stage: "screen" or "confirm".
        settings: Its recipe.
        digest: Of the recipe.
        complete: Whether all its runs have ended.
        metric: The primary metric of the task.
        baseline: The label of the arm that the others are compared with.
        runs: The reported runs.
        searches: {arm: all trials of its learning rate, and what they chose}.
        machine: What computed it, without names and paths.
        versions: {library: version}.
        processor_seconds: Of all its processes; None: they were not counted.
        wall_seconds: From start to end, without interruptions.
    """

    model_config = ConfigDict(extra="forbid")

    cell: str
    stage: str
    settings: dict[str, Any]
    digest: str
    complete: bool
    metric: str
    baseline: str
    kind: str = "classification"
    runs: list[StoredRun]
    searches: dict[str, LearningRateChoice]
    machine: str
    versions: dict[str, str]
    processor_seconds: float | None = None
    wall_seconds: float

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """{seed: value} of an arm's runs that have the metric."""
        name = self.metric if metric == "score" else metric
        return {
            run.seed: run.metrics[name]
            for run in self.runs
            if run.arm == arm and name in run.metrics
        }

    @property
    def arms(self) -> list[str]:
        """The labels of the arms that have runs, in the order of the recipe."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def adapter_parameters(self, arm: str) -> int | None:
        """Of the arm's first run that has a result."""
        known = (run.adapter_parameters for run in self.runs if run.arm == arm)
        return next((count for count in known if count is not None), None)


def scores_file(folder: Path, cell: str) -> Path:
    """Where the scores of a cell are stored."""
    return folder / f"{cell}{ENDING}"


def save(scores: CellScores, folder: Path) -> None:
    """Write the scores of a cell; equal scores are equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(scores.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
    path = scores_file(folder, scores.cell)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> CellScores:
    """The scores in a file.

    Raises:
        IwloraError: They are not what :func:`save` writes.
    """
    try:
        return CellScores.model_validate_json(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise IwloraError(f"{path} holds no scores of a cell ({reason}); restore it") from None


def load_all(folder: Path) -> list[CellScores]:
    """The scores of all cells, those of the confirmation first, else in the order of the cells."""
    found = [load(path) for path in sorted(folder.glob(f"*{ENDING}"))]
    return sorted(found, key=lambda scores: scores.stage != "confirm")
