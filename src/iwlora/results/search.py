"""The search for each arm's learning rate: what was tried, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from iwlora.results.formats import Document
from iwlora.results.run import Label, Name, RunResult

State = Literal["waiting", "running", "done", "failed", "diverged", "not begun"]
"""How a run of a comparison stands."""


class Trial(BaseModel):
    """One trial: its learning rate and seed, its scores on the held-out rows, its cost.

    ``state`` is "not begun" if the search ran out of time before this trial.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    lr: float
    seed: int
    state: State
    score: float | None = None
    loss: float | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, lr: float, seed: int, result: RunResult | None, state: State) -> Trial:
        """The trial that has this result; one whose score is not a finite number has failed."""
        if result is None:
            return cls(lr=lr, seed=seed, state=state)
        times = (result.train_seconds, result.measure_seconds)
        seconds = sum(time or 0.0 for time in times)
        if result.score is None:
            return cls(lr=lr, seed=seed, state="failed", seconds=seconds)
        loss = result.metrics.get("loss")
        return cls(lr=lr, seed=seed, state="done", score=result.score, loss=loss, seconds=seconds)


class LearningRateChoice(BaseModel):
    """The learning rate that the search of an arm chose; ``remark`` says why it is uncertain.

    ``lr`` is None if no trial finished. ``inside`` is True if the best learning rate is neither
    the smallest nor the largest that was tried, and no trial is missing.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    lr: float | None
    inside: bool
    remark: str | None
    metric: Name | None
    trials: list[Trial]


class Search(Document):
    """``search.json`` of a comparison: {label: the learning rate chosen for this arm}."""

    format_name: ClassVar[str] = "search"

    arms: dict[Label, LearningRateChoice] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had the arms at the top."""
        return {"arms": fields} if version == 1 else fields


def load_search(path: Path) -> dict[str, LearningRateChoice]:
    """The choices in a ``search.json``; empty without one, ``IwloraError`` if it is damaged."""
    return Search.load(path).arms if path.exists() else {}


def save_search(path: Path, choices: Mapping[str, LearningRateChoice]) -> None:
    """Write the choices of all arms, atomically."""
    Search(arms=dict(choices)).save(path)
