"""Folders that ``datasets`` saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.limits import memory_limit
from iwlora.inputs.places import check_folder, files_below, inside, user_path
from iwlora.inputs.tables.arrow import BATCH_MEMORY, BATCH_ROWS, ColumnTable, bounded_batches
from iwlora.inputs.yaml_json import read_mapping


@dataclass
class SavedFolder(ColumnTable):
    """One split; class ids become the names of their classes."""

    split: str = "train"

    def schema(self) -> Any:
        """Arrow's schema, with numbers for classes."""
        return _loaded(self.path, self.split).data.schema

    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """The values as they are stored: a file that a row names is not opened."""
        rows = _loaded(self.path, self.split).select_columns(list(columns))
        features = [rows.features[name] for name in columns]
        # Of a list the feature is that of its items. Only classes have names.
        names = {
            column: found
            for column, feature in zip(columns, features, strict=True)
            if (found := getattr(getattr(feature, "feature", feature), "names", None))
        }
        files = [file for file in files_below(user_path(self.path)) if file.suffix == ".arrow"]
        size = sum(file.stat().st_size for file in files)
        batches = rows.with_format("arrow").iter(BATCH_ROWS)
        yield from bounded_batches(self.path, size, batches, columns, names)


def is_saved(path: str) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    folder = user_path(path)
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def saved_splits(path: str) -> list[str]:
    """The splits in a folder that ``DatasetDict.save_to_disk`` wrote; none of anything else."""
    listed = user_path(path) / "dataset_dict.json"
    if not listed.is_file():
        return []
    splits = read_mapping(listed).get("splits")
    if not isinstance(splits, list):
        raise IwloraError(f"{listed} lists no splits")
    names = [str(split) for split in splits]
    if len(set(names)) < len(names):
        raise IwloraError(f"{listed} lists a split twice")
    return names


def _loaded(path: str, split: str) -> Any:
    import datasets

    folder = user_path(path)
    check_folder(folder)
    for name in saved_splits(path):
        inside(folder, name)
    for state in files_below(folder):
        if state.name == "state.json":
            for name in _files_in(state):
                inside(state.parent, name)
    try:
        with memory_limit(f"opening {path}", BATCH_MEMORY):
            dataset = datasets.load_from_disk(str(folder))
    except IwloraError:
        raise
    except Exception as error:  # a damaged folder makes the loader raise nearly anything
        raise IwloraError(f"{path} is not a folder that datasets can load: {error}") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise IwloraError(f"{path} has no split {split!r}; it has {', '.join(dataset)}")
        return dataset[split]
    return dataset


def _files_in(state: Path) -> list[str]:
    """The files that the ``state.json`` of a saved data set names."""
    files = read_mapping(state).get("_data_files")
    if not isinstance(files, list) or not all(isinstance(f, dict) for f in files):
        raise IwloraError(f"{state} lists no files of data")
    names = [str(file.get("filename")) for file in files]
    if len(set(names)) < len(names):
        raise IwloraError(f"{state} lists a file of data twice")
    return names
