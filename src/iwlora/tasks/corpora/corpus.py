"""The base class of the named corpora: a task from official files, or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.tasks.corpora.hub import check_class_order, load_from_hub
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.contract import Kind
from iwlora.tasks.splits import dataset_from_rows
from iwlora.tasks.task import Task

Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The schema of a named task, and where its rows come from.

    A subclass says how to read the rows of a split from the official files (``file_rows``), and
    from the hub where its columns differ (``hub_rows``).
    """

    summary: str
    text: tuple[str, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    positive: int = 1
    kind: Kind = field(default_factory=Classification)
    splits: tuple[str, ...] = ("train", "validation")
    hub_id: str | None = None
    """None: the corpus is generated, and reads neither files nor the hub."""
    hub_config: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    """The splits that have another name on the hub, and that name."""

    @property
    def layout(self) -> str:
        """The official files, which are named where the hub cannot be reached."""
        raise NotImplementedError

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task, from the folder ``data_dir`` or, where it is None, from the hub.

        Raises:
            IwloraError: A file is missing or malformed (the message names file and line), or the
                hub cannot be reached.
        """
        notes: list[str] = []
        hub = None
        if data_dir is None:
            hub = load_from_hub(name, str(self.hub_id), self.hub_config, self.layout)
        splits = {}
        for split in self.splits:
            if hub is None:
                rows = self.file_rows(str(data_dir), split, notes)
            else:
                records = hub[self.hub_splits.get(split, split)]
                if self.labels:
                    check_class_order(name, records, self.labels)
                rows = self.hub_rows(records)
            splits[split] = dataset_from_rows(self.text, rows, self.kind)
        if "f1" in self.metrics and self.labels:
            notes.append(f"f1 counts the class {self.labels[self.positive]!r} as positive")
        schema = (name, self.text, self.labels, self.metrics, self.positive)
        return Task(*schema, kind=self.kind, splits=splits, notes=tuple(notes))

    def file_rows(self, data_dir: str, split: str, notes: list[str]) -> Rows:
        """``(*texts, label)`` for each row of a split; notes for the user are appended."""
        raise NotImplementedError

    def hub_rows(self, records: Any) -> Rows:
        """``(*texts, label)`` for each row of a split of the hub's copy."""
        return list(zip(*(records[name][:] for name in (*self.text, "label")), strict=True))


def corpus_folder(data_dir: str, subfolder: str, train_file: str) -> Path:
    """The folder of a task's files: ``data_dir/subfolder``, or ``data_dir`` itself."""
    root = Path(data_dir).expanduser()
    if (root / subfolder).is_dir():
        return root / subfolder
    if not (root / train_file).is_file():
        raise IwloraError(
            f"task.data_dir={data_dir} has neither {subfolder}/{train_file} nor {train_file}"
        )
    return root
