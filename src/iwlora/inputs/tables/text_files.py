"""Plain texts: a file of them, and folders of text files, one for each class or texts alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import ClassVar

from iwlora.errors import IwloraError, is_of_system
from iwlora.inputs.encoding import encoding_notes, encoding_of
from iwlora.inputs.lines import read_chunks, read_lines
from iwlora.inputs.places import MOST_BYTES, check_folder, entries, stays_inside, user_path
from iwlora.inputs.tables.dialect import SAMPLE_LINES, TEXT_WORDS, is_divided
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
                if is_of_system(error):  # else it would be left out as a bad row
                    raise
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


class TextFile(Table):
    """A file of texts: with blank lines between them, or, where it has none, one on each line."""

    @cached_property
    def _encoding(self) -> str:
        return self.reading.encoding or encoding_of(self.path)

    @cached_property
    def _has_blank_lines(self) -> bool:
        lines = islice(read_lines(self.path, self._encoding), SAMPLE_LINES)
        return _has_paragraphs([line for _, line in lines])

    def columns(self) -> list[str]:
        """text."""
        next(read_lines(self.path, self._encoding), None)  # raises for a file that cannot be read
        return ["text"]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """Texts, each with the number of its first line."""
        places = positions(self.path, self.columns(), columns)
        yield from ((number, [text for _ in places]) for number, text in self._texts())

    def notes(self) -> list[str]:
        """The encoding, and how the texts are divided."""
        between = "blank lines are between them" if self._has_blank_lines else "one on each line"
        note = f"{self.path}: read as plain texts, {between}; for a table give task.header=true"
        return [*encoding_notes(self.path, self._encoding, self.reading.encoding), note]

    def _texts(self) -> Iterator[tuple[int, str]]:
        lines: list[str] = []
        first, size, most = 1, 0, MOST_BYTES["line"]
        for number, line in read_lines(self.path, self._encoding):
            if lines and not (self._has_blank_lines and line.strip()):
                yield first, "\n".join(lines)
                lines, size = [], 0
            if line.strip():
                first = first if lines else number
                lines.append(line)
                size += len(line)
            if size > most:
                raise IwloraError(
                    f"{self.path}, line {first}: a text of more than {most / 2**20:g} MiB; put "
                    "blank lines between texts"
                )
        if lines:
            yield first, "\n".join(lines)


def looks_like_texts(path: str, lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are texts and no table.

    No delimiter divides them alike, and the first one is longer than the name of a column, or blank
    lines are between texts.
    """
    written = [line for line in lines if line.strip()]
    if not written or is_divided(path, written):
        return False
    return len(written[0].split()) >= TEXT_WORDS or _has_paragraphs(lines)


def _has_paragraphs(lines: Sequence[str]) -> bool:
    return "\n\n" in "\n".join(line.strip() for line in lines).strip()


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
    """The splits that a folder of texts has as subfolders: train alone, or it and others.

    Without another split beside it, a folder "training" among others is a class.
    """
    names = {folder.name for folder in _folders_in(user_path(path))}.difference(_UNLABELLED)
    splits = [split for split, known in _SPLITS.items() if names & {*known}]
    return splits if "train" in splits and (len(splits) > 1 or len(names) == 1) else []


def _split_folder(path: str, split: str) -> Path:
    folder = user_path(path)
    if split not in text_splits(path):
        return folder
    return next(folder / name for name in _SPLITS[split] if (folder / name).is_dir())


def _folders_in(folder: Path) -> list[Path]:
    inner = [path for path in entries(folder) if path.is_dir() and not path.name.startswith(".")]
    return [path for path in inner if stays_inside(path, folder.resolve())]


def _texts_in(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.name.lower().endswith(_ENDINGS)]
