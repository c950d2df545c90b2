"""The floors of a comparison, computed once for its data and its model: ``floors.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import Self

from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.formats import Document, StoredModel
from iwlora.results.run import FloorScore, Name, Run


class PredictedFloor(StoredModel):
    """What a simple rule, or a linear model, predicts for the compared rows."""

    name: Name
    trivial: bool
    predictions: list[Any]


class RunFloors(StoredModel):
    """The floors beside one run; ``result`` is the SHA-256 of the ``result.json`` they are for."""

    result: str
    floors: list[FloorScore]


class ComparisonFloors(Document):
    """``floors.json``: the floors beside each run, and what they predict.

    Args:
        predicted: {digest of data and model: the floors}, so that further runs need no others.
        runs: {path of the run in the comparison's folder: its floors}.
    """

    format_name: ClassVar[str] = "floors"
    is_sealed: ClassVar[bool] = True

    predicted: dict[str, list[PredictedFloor]] = Field(default_factory=dict)
    runs: dict[str, RunFloors] = Field(default_factory=dict)

    @classmethod
    def of(cls, comparison: Path) -> Self:
        """The floors in the folder of a comparison; none without the file."""
        path = comparison / layout.FLOORS
        return cls.load(path) if path.is_file() else cls()

    def beside(self, run: Run, comparison: Path) -> Run:
        """The run with its floors, if they are for the result that it has now."""
        if run.folder is None or not (known := self.runs.get(key(run.folder, comparison))):
            return run
        if known.result != file_digest(run.folder / layout.RESULT):
            return run
        return Run(run.folder, run.result.model_copy(update={"floors": known.floors}))


def key(run: Path, comparison: Path) -> str:
    """How ``floors.json`` names a run.

    >>> key(Path("runs/a/lora/seed-3"), Path("runs/a"))
    'lora/seed-3'
    """
    return run.relative_to(comparison).as_posix()
