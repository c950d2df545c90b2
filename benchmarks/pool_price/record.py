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
        about: The machine, the models and the numbers of rows and epochs.
        scores: {cell: {seed: {arm: accuracy in percent}}}.
        seconds: {cell: {seed: seconds of the processor}}, without what an earlier command did.
        chosen: {cell: {method: learning rate, or the strength of EWC}}.
        searches: {cell: how its learning rates were searched}.
    """

    file: Path
    about: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)
    searches: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Record:
        """The record in a file; an empty one where there is none."""
        if not file.is_file():
            return cls(file)
        return cls(file, **json.loads(gzip.decompress(file.read_bytes())))

    def check_settings(self, about: dict[str, Any]) -> None:
        """Exit if what is recorded was made with other settings than the ones given."""
        settings = {name: value for name, value in about.items() if name != "machine"}
        recorded = {name: value for name, value in self.about.items() if name != "machine"}
        if self.scores and settings != recorded:
            raise SystemExit(
                f"{self.file} was recorded with {recorded}, and {settings} was given; give the "
                "same settings, or another file with --recorded"
            )
        self.about = about

    def forget_other_searches(self, cell: str, search: str) -> None:
        """Drop what is recorded of a cell whose learning rates were searched in another way."""
        if self.searches.get(cell) != search:
            for of_cells in (self.scores, self.seconds, self.chosen):
                of_cells.pop(cell, None)
            self.searches[cell] = search

    def save(self) -> None:
        """Write the file; equal records have equal bytes."""
        fields = {name: value for name, value in vars(self).items() if name != "file"}
        text = json.dumps(fields, indent=1)  # in the order in which it was scored
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as temporary:
            temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
