"""The scores of finished cells, in one small file that a report reads."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iwlora.results.writing import replacing


@dataclass
class Record:
    """What was scored so far.

    Args:
        file: Where it is kept.
        about: The models and the numbers of rows and epochs.
        scores: {cell: {seed: {arm: accuracy in percent}}}.
        seconds: {cell: {seed: seconds of the processor}}, without what an earlier command did.
        chosen: {cell: {method: learning rate, or the strength of EWC}}.
        searches: {cell: how its learning rates were searched}.
        machines: {cell: the machine on which it was recorded}.
    """

    file: Path
    about: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)
    searches: dict[str, str] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Record:
        """The record in a file; an empty one where there is none."""
        if not file.is_file():
            return cls(file)
        return cls(file, **json.loads(gzip.decompress(file.read_bytes())))

    def check_settings(self, about: dict[str, Any]) -> None:
        """Exit if what is recorded was made with other settings than the ones given."""
        if self.scores and about != self.about:
            raise SystemExit(
                f"{self.file} was recorded with {self.about}, and {about} was given; give the "
                "same settings, or another file with --recorded"
            )
        self.about = about

    def begin(self, cell: str, seeds: int, search: str, machine: str) -> None:
        """Drop what is recorded of a cell if it cannot be continued.

        That is so if its learning rates were searched in another way, or if another machine
        recorded a part of it, which may have trained in another precision.
        """
        is_complete = len(self.scores.get(cell, {})) >= seeds
        elsewhere = self.machines.get(cell) != machine and not is_complete
        if self.searches.get(cell) != search or elsewhere:
            for of_cells in (self.scores, self.seconds, self.chosen):
                of_cells.pop(cell, None)
            self.searches[cell], self.machines[cell] = search, machine

    def save(self) -> None:
        """Write the file; equal records have equal bytes."""
        fields = {name: value for name, value in vars(self).items() if name != "file"}
        text = json.dumps(fields, indent=1)  # in the order in which it was scored
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as temporary:
            temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
