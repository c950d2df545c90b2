"""Folders of text files: a folder for each class, or texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from iwlora.errors import IwloraError
from iwlora.inputs.encoding import encoding_of
from iwlora.inputs.lines import read_chunks
from iwlora.inputs.places import MOST_BYTES, check_folder, entries, user_path
from iwlora.inputs.tables.reading import Problems, Records, Table, positions

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_ENDINGS = (".txt", ".txt.gz")
_UNLABELLED = ("unsup", "unlabeled", "unlabelled")


@dataclass
class TextFolder(Table):
    """The text files of a folder, in the order of their names; a subfolder is a class."""

    split: str = "train"
    unit: ClassVar[str] = "file"

    @property
    def _files(self) -> list[tuple[Path, str]]:
        """(file, class or "") of each text."""
        root = _split_folder(self.path, self.split)
        folders = (root, *_folders_in(root))
        return _listed(root, tuple(folder.stat().st_mtime_ns for folder in folders))

    def columns(self) -> list[str]:
        """file, text, and label where there are classes."""
        return ["file", "text", *(["label"] if any(name for _, name in self._files) else [])]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """Texts."""
        names = self.columns()
        places = positions(self.path, names, columns)
        for number, (file, label) in enumerate(self._files, start=1):
            try:
                text = self._text(file)
            except IwloraError as error:
                problems.append((number, str(error)))
                continue
            row = (file.name, text, label)
            yield number, [row[place] for place in places]

    def place(self, number: int) -> str:
        """The file in the folder."""
        return str(self._files[number - 1][0].relative_to(user_path(self.path)))

    def notes(self) -> list[str]:
        """Folders that hold no class."""
        root = _split_folder(self.path, self.split)
        left = [folder.name for folder in _folders_in(root) if folder.name in _UNLABELLED]
        return [f"{root}: texts without a class are not read ({', '.join(left)})"] if left else []

    def _text(self, file: Path) -> str:
        text, most = "", MOST_BYTES["line"]
        for part in read_chunks(file, self.reading.encoding or encoding_of(str(file))):
            text += part
            if len(text) > most:
                raise IwloraError(
                    f"{file} is larger than {most / 2**20:g} MiB, the most of one text"
                )
        return text.removeprefix("\ufeff").replace("\r\n", "\n")


@lru_cache(maxsize=4)
def _listed(root: Path, _changed: tuple[int, ...]) -> list[tuple[Path, str]]:
    check_folder(root)
    if direct := _texts_in(root):
        return [(file, "") for file in direct]
    classes = [folder for folder in _folders_in(root) if folder.name not in _UNLABELLED]
    return [(file, folder.name) for folder in classes for file in _texts_in(folder)]


def is_text_folder(path: str) -> bool:
    """Whether a folder holds text files, in it or in the folders of classes or splits."""
    folder = user_path(path)
    inner = [*_folders_in(folder), *(f for part in _folders_in(folder) for f in _folders_in(part))]
    return folder.is_dir() and any(map(_texts_in, [folder, *inner]))


def text_splits(path: str) -> list[str]:
    """The splits that a folder of texts has as subfolders."""
    names = {folder.name for folder in _folders_in(user_path(path))}
    return (
        [split for split, known in _SPLITS.items() if names & {*known}] if "train" in names else []
    )


def _split_folder(path: str, split: str) -> Path:
    folder = user_path(path)
    if split not in text_splits(path):
        return folder
    return next(folder / name for name in _SPLITS[split] if (folder / name).is_dir())


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir() and not path.name.startswith(".")]


def _texts_in(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.name.lower().endswith(_ENDINGS)]
