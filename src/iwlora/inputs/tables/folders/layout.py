"""Folders of files, each of which is a row: a folder for each class, or files alone, and splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.inputs.places import check_folder, entries, files_below, stays_inside, user_path
from iwlora.inputs.tables.reading import Problems, Records, Table, positions

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_UNLABELED = ("unsup", "unlabeled", "unlabelled")
_LISTED = 5  # names in a note


@dataclass
class FileFolder(Table):
    """The files of a folder, in the order of their names; a subfolder is a class."""

    split: str = "train"
    unit: ClassVar[str] = "file"
    endings: ClassVar[tuple[str, ...]]
    """Of the files that are rows, in lower case."""
    content: ClassVar[str]
    """The column with what a file holds."""

    @abstractmethod
    def cell(self, file: Path, problems: Problems, number: int) -> Any:
        """What stands for a file in the column of its content; None if it cannot be read."""

    @cached_property
    def files(self) -> list[tuple[Path, str]]:
        """(file, class or "") of each row; listed once, so that a number keeps its meaning."""
        root = self.root
        check_folder(root)
        if direct := _files_in(root, self.endings):
            return [(file, "") for file in direct]
        classes = [folder for folder in _folders_in(root) if folder.name not in _UNLABELED]
        found = [(file, part.name) for part in classes for file in _files_in(part, self.endings)]
        if not found:
            raise IwloraError(
                f"{root} has no {self.content}s, neither in it nor in its folders; deeper folders "
                f"are not read: move the {self.content}s of each class into one folder, or give a "
                f"table as task.train{self._on_splits()}"
            )
        return found

    def _on_splits(self) -> str:
        """How folders of splits are named, where it seems that some are meant."""
        known = {name for names in _SPLITS.values() for name in names}
        if not known & {folder.name.lower() for folder in _folders_in(self.root)}:
            return ""
        names = "; ".join(" or ".join(names) for names in _SPLITS.values())
        return f". If its folders are splits, they must have these names: {names}"

    @property
    def root(self) -> Path:
        """The folder of the split."""
        return _split_folders(self.path).get(self.split, user_path(self.path))

    def columns(self) -> list[str]:
        """file, the content, and label where there are classes."""
        return ["file", self.content, *(["label"] if any(name for _, name in self.files) else [])]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """The name, the content and the class of each file."""
        places = positions(self.path, self.columns(), columns)
        for number, (file, label) in enumerate(self.files, start=1):
            cell = self.cell(file, problems, number)
            if cell is not None:
                row = (file.name, cell, label)
                yield number, [row[place] for place in places]

    def place(self, number: int) -> str:
        """The file in the folder."""
        return str(self.files[number - 1][0].relative_to(user_path(self.path)))

    def notes(self) -> list[str]:
        """Folders that hold no class; what lies beside the folders of splits."""
        left = [folder.name for folder in _folders_in(self.root) if folder.name in _UNLABELED]
        without = f"{self.content}s without a class are not read ({', '.join(left)})"
        return [*([f"{self.root}: {without}"] if left else []), *self._beside_splits()]

    def _beside_splits(self) -> list[str]:
        """Folders and files beside the folders of splits, which are no rows; said of train."""
        folder, splits = user_path(self.path), _split_folders(self.path).values()
        if not splits or self.split != "train":
            return []
        others = [beside.name for beside in _folders_in(folder) if beside not in splits]
        others += [file.name for file in _files_in(folder, self.endings)]
        if not others:
            return []
        read = " and ".join(split.name for split in splits)
        listed = ", ".join(others[:_LISTED]) + (", ..." if len(others) > _LISTED else "")
        return [f"{folder}: of its folders only {read} are read, not what lies beside ({listed})"]


def other_files(folder: FileFolder) -> list[Path]:
    """The files in a folder, or in its folders of classes, that are no rows by their endings."""
    places = [folder.root, *_folders_in(folder.root)]
    found = (path for place in places for path in entries(place) if path.is_file())
    return [
        path
        for path in found
        if not path.name.startswith(".") and not path.name.lower().endswith(folder.endings)
    ]


def deeper_files(folder: FileFolder) -> list[Path]:
    """The files in deeper folders than those of the rows, which only by their endings are rows."""
    rows = {file for file, _ in folder.files}
    found = []
    for path in files_below(folder.root):
        names = path.relative_to(folder.root).parts
        is_left_out = names[0] in _UNLABELED or any(name.startswith(".") for name in names)
        if path.name.lower().endswith(folder.endings) and not is_left_out and path not in rows:
            found.append(path)
    return found


def count_files(path: str, *kinds: tuple[str, ...]) -> list[int]:
    """How many files a folder holds with the endings of each kind, in it or in the folders of
    classes or splits.

    0 for a path that is no folder.
    """
    folder = user_path(path)
    parts = _folders_in(folder)
    inner = [folder, *parts, *(f for part in parts for f in _folders_in(part))]
    return [sum(len(_files_in(place, endings)) for place in inner) for endings in kinds]


def folder_splits(path: str) -> list[str]:
    """The splits that a folder of files has as subfolders: train alone, or it and others.

    Without another split beside it, a folder "training" among others is a class.
    """
    return [*_split_folders(path)]


def _split_folders(path: str) -> dict[str, Path]:
    """{split: its folder}, by names in upper or lower case."""
    folders = [folder for folder in _folders_in(user_path(path)) if folder.name not in _UNLABELED]
    named = {folder.name.lower(): folder for folder in folders}
    found = {
        split: named[name]
        for split, known in _SPLITS.items()
        for name in reversed(known)  # the first name decides
        if name in named
    }
    return found if "train" in found and (len(found) > 1 or len(folders) == 1) else {}


def _folders_in(folder: Path) -> list[Path]:
    inner = [path for path in entries(folder) if path.is_dir() and not path.name.startswith(".")]
    return [path for path in inner if stays_inside(path, folder.resolve())]


def _files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files with these endings; hidden ones, such as those that macOS writes, are no rows."""
    named = [path for path in entries(folder) if path.name.lower().endswith(endings)]
    return [path for path in named if not path.name.startswith(".")]
