"""The base classes of the named corpora: a task from official files, or from the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from iwlora.errors import BadRow, BadRowsError, IwloraError
from iwlora.inputs.models.hub import load_hub_dataset
from iwlora.inputs.places import check_folder, user_path
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.contract import Kind
from iwlora.tasks.splits import dataset_from_rows, left_out_notes
from iwlora.tasks.task import Task

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The schema of a named task, and where its rows come from.

    A subclass says how to read the rows of a split from the official files (``file_rows``), and
    from the hub where its columns differ (``hub_rows``).
    """

    summary: str
    text: tuple[str, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    positive: int = 1
    kind: Kind = field(default_factory=Classification)
    splits: tuple[str, ...] = ("train", "validation")
    hub_id: str | None = None
    """None: the corpus is generated, and reads neither files nor the hub; "": it has files only."""
    grammar_seed: int | None = None
    """The seed of the rows of a corpus that is generated; None: it is not."""
    grammar_depth: int | None = None
    """How many clauses the sentences of a generated corpus have in one another; None: no choice."""
    hub_config: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    """The splits that have another name on the hub, and that name."""

    @property
    def layout(self) -> str:
        """The official files, which are named where the hub cannot be reached."""
        raise NotImplementedError

    def text_files(self, data_dir: str | None) -> list[Path] | None:
        """All text files that the rows are read from; None where that is not known."""
        return [] if self.hub_id is None and data_dir is None else None

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task, from the folder ``data_dir`` or, where it is None, from the hub.

        Raises:
            BadRowsError: No row of a file can be used.
            IwloraError: A file is missing or malformed, or the hub cannot be reached.
        """
        notes: list[str] = []
        bad: list[BadRow] = []
        hub = self._load_from_hub(name) if data_dir is None else {}
        folder = user_path(data_dir or "")
        if data_dir is not None:
            check_folder(folder)
        splits = {}
        for split in self.splits:
            if data_dir is None:
                records = hub[self.hub_splits.get(split, split)]
                self._check_class_order(name, records)
                rows = self.hub_rows(records)
            else:
                rows = self.file_rows(folder, split, notes, bad)
            splits[split] = dataset_from_rows(self.text, rows, self.kind)
        if "f1" in self.metrics and self.labels:
            notes.append(f"f1 counts the class {self.labels[self.positive]!r} as positive")
        notes += left_out_notes(bad, splits)
        schema = (name, self.text, self.labels, self.metrics, self.positive)
        return Task(*schema, kind=self.kind, splits=splits, notes=tuple(notes), bad_rows=tuple(bad))

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """``(*texts, label)`` for each row of a split; notes for the user, and rows that cannot be
        used, are appended."""
        raise NotImplementedError

    def hub_rows(self, records: Any) -> Sequence[Row]:
        """``(*texts, label)`` for each row of a split of the hub's copy."""
        return list(zip(*(records[name][:] for name in (*self.text, "label")), strict=True))

    def hub_configuration(self, name: str) -> str | None:
        """The configuration of the data set on the hub, for the task ``name``."""
        return self.hub_config

    def _load_from_hub(self, name: str) -> Mapping[str, Any]:
        """The splits of the data set on the hub, or in its local cache."""
        try:
            return load_hub_dataset(self.hub_id, self.hub_configuration(name))  # type: ignore[no-any-return]
        except (OSError, ValueError) as error:
            raise IwloraError(
                f"{name} could not be fetched from the hub ({error}): give task.data_dir=FOLDER, "
                f"a folder that holds {self.layout}"
            ) from error

    def _check_class_order(self, name: str, records: Any) -> None:
        classes = tuple(records.features["label"].names) if self.labels else ()
        if classes != self.labels:
            raise IwloraError(
                f"{name}: the hub numbers the classes as {classes}, {self.labels} was expected; "
                "give task.data_dir=FOLDER instead"
            )


@dataclass(frozen=True, kw_only=True)
class BenchmarkCorpus(Corpus):
    """A task of a benchmark that has a folder for each of its tasks."""

    benchmark: ClassVar[str]
    folder: str
    files: Mapping[str, str]

    @property
    def layout(self) -> str:
        """The first file of the task."""
        return f"{self.benchmark}'s {self.folder}/{self.files['train']}"

    def text_files(self, data_dir: str | None) -> list[Path] | None:
        """The official file of each split."""
        if data_dir is None or not user_path(data_dir).is_dir():
            return None
        return [self.file(user_path(data_dir), split) for split in self.splits]

    def hub_configuration(self, name: str) -> str:
        """The last part of the task's name."""
        return name.split("/")[-1]

    def file(self, data_dir: Path, split: str) -> Path:
        """The file of a split: in the task's folder in ``data_dir``, or in ``data_dir`` itself."""
        folder, train = data_dir / self.folder, self.files["train"]
        if not folder.is_dir():
            folder = data_dir
            if not (folder / train).is_file():
                raise IwloraError(
                    f"task.data_dir={data_dir} has neither {self.folder}/{train} nor {train}"
                )
        return folder / self.files[split]


@dataclass(frozen=True, kw_only=True)
class TextPairCorpus(Corpus):
    """Pairs of a source and a target text, scored on the test split."""

    splits: tuple[str, ...] = ("train", "validation", "test")
    target: str
    """What the hub calls the target."""

    def hub_rows(self, records: Any) -> Sequence[Row]:
        """The pairs of the hub's copy; translations are in a field of their own."""
        (source,) = self.text
        fields = (record.get("translation", record) for record in records)
        return [(row[source].strip(), row[self.target].strip()) for row in fields]


def parse_records(
    file: tuple[str, Path],
    unit: str,
    records: Iterable[tuple[Any, Any]],
    parse: Callable[[Any], Row | None],
    bad: list[BadRow],
) -> list[Row]:
    """The rows that ``parse`` makes of (number, record) in the ``file`` of a split; those that it
    returns None for are left out. Records for which it raises a ``ValueError`` are added to
    ``bad``."""
    split, path = file
    rows: list[Row] = []
    found: list[BadRow] = []
    for number, record in records:
        try:
            row = parse(record)
            if row is not None:
                rows.append(row)
        except ValueError as error:
            found.append(BadRow(split, str(path), f"{unit} {number}", str(error)))
    if not rows and found:
        raise BadRowsError(found)
    if not rows:
        raise IwloraError(f"{path} holds no labeled rows")
    bad += found
    return rows
