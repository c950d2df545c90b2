"""The recorded runs of a task: one file of scores per example, small enough to keep.

A row's score is the log-odds of its true class, logit(true) - logit(other), of a task with two
classes. It is above 0 where the prediction is right, and log(1 + exp(-score)) is the loss in nats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.results.writing import replacing

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
OFFICIAL, STUDY, STUDY_OF_MEAN = "official", "study", "study, mean of the last weights"
SPLITS = (OFFICIAL, STUDY, STUDY_OF_MEAN)
LORA, OTHER_START, FEWER_ROWS = "lora", "other start", "1,600 rows"


@dataclass(frozen=True)
class RecordedRun:
    """A run, and its processor seconds by part: setup, training, and scoring each split."""

    arm: str
    lr: float
    seed: int
    steps: int
    seconds: Mapping[str, float]
    diverged: bool = False

    @property
    def key(self) -> tuple[str, float, int]:
        """What tells the runs of a task apart."""
        return self.arm, self.lr, self.seed


@dataclass
class Bank:
    """The runs of a task and their scores: {split: (runs, rows)}, in the same order.

    ``machines`` recorded them, in their order. ``labels`` are the true classes
    {split: (rows,)}. A run that diverged, or was not scored in that way, has NaN as scores.
    """

    task: str
    model: str = ""
    machines: list[str] = field(default_factory=list)
    runs: list[RecordedRun] = field(default_factory=list)
    scores: dict[str, Array] = field(default_factory=dict)
    labels: dict[str, npt.NDArray[np.int8]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, task: str) -> Bank:
        """The runs that are recorded so far, which may be none."""
        file = bank_file(folder, task)
        if not file.is_file():
            return cls(task)
        with np.load(file, allow_pickle=False) as stored:
            runs = [RecordedRun(**values) for values in json.loads(str(stored["runs"]))]
            scores = {name: stored[name].astype(float) for name in SPLITS if name in stored}
            labels = {name: stored[f"labels, {name}"] for name in (OFFICIAL, STUDY)}
            about = json.loads(str(stored["about"]))
            return cls(task, about["model"], about["machines"], runs, scores, labels)

    def add(self, run: RecordedRun, scores: Mapping[str, Array]) -> None:
        """Append a run; splits that it was not scored on are NaN."""
        for name in {**self.scores, **scores}:
            rows = len(scores[name]) if name in scores else self.scores[name].shape[1]
            before = self.scores.get(name, np.full((len(self.runs), rows), np.nan))
            values = scores.get(name, np.full(rows, np.nan))
            self.scores[name] = np.concatenate([before, values[None]])
        self.runs.append(run)

    def save(self, folder: Path) -> None:
        """Replace the task's file."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            name: values.astype(np.float16) for name, values in self.scores.items()
        }
        labels: dict[str, Any] = {f"labels, {name}": values for name, values in self.labels.items()}
        about = json.dumps({"model": self.model, "machines": self.machines})
        runs = json.dumps([asdict(run) for run in self.runs])
        with replacing(bank_file(folder, self.task)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, about=np.array(about), runs=np.array(runs), **arrays, **labels
            )

    def has(self, arm: str, lr: float, seed: int) -> bool:
        """Whether a run is recorded."""
        return any(run.key == (arm, lr, seed) for run in self.runs)

    def of_arm(self, arm: str, lr: float) -> dict[int, int]:
        """{seed: number of the run} of an arm that did not diverge, by rising seed."""
        found = {
            run.seed: number
            for number, run in enumerate(self.runs)
            if run.arm == arm and run.lr == lr and not run.diverged
        }
        return dict(sorted(found.items()))


def bank_file(folder: Path, task: str) -> Path:
    """Where the runs of a task are stored."""
    return folder / f"{task.replace('/', '-')}.npz"
