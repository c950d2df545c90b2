"""The base class of the corpora of source and target texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.tasks.corpora.corpus import Corpus, Rows


@dataclass(frozen=True, kw_only=True)
class TextPairCorpus(Corpus):
    """Pairs of a source and a target text, scored on the test split."""

    splits: tuple[str, ...] = ("train", "validation", "test")
    target: str
    """What the hub calls the target."""

    def pairs(self, folder: Path, split: str) -> Iterator[tuple[str, str]]:
        """(source, target) of each row of a split, from the official files."""
        raise NotImplementedError

    def file_rows(self, data_dir: str, split: str, notes: list[str]) -> Rows:
        """The pairs of a split."""
        rows = list(self.pairs(Path(data_dir).expanduser(), split))
        if not rows:
            raise IwloraError(f"task.data_dir={data_dir} holds no rows of {split}")
        return rows

    def hub_record(self, record: Mapping[str, Any]) -> Mapping[str, str]:
        """The fields with the texts in a row of the hub's copy."""
        return record

    def hub_rows(self, records: Any) -> Rows:
        """The pairs of the hub's copy."""
        (source,) = self.text
        fields = (self.hub_record(record) for record in records)
        return [(row[source].strip(), row[self.target].strip()) for row in fields]
