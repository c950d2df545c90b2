"""Folders of image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iwlora.inputs.images import ENDINGS
from iwlora.inputs.places import user_path
from iwlora.inputs.tables.folders.layout import FileFolder, deeper_files, other_files
from iwlora.inputs.tables.reading import Problems

_LISTED = 5  # endings, or folders, in a note


@dataclass
class ImageFolder(FileFolder):
    """The image files of a folder, which are not opened: a row has the path in the folder."""

    endings: ClassVar[tuple[str, ...]] = ENDINGS
    content: ClassVar[str] = "image"

    def cell(self, file: Path, problems: Problems, number: int) -> str:
        """The path of a file in the folder."""
        return file.relative_to(user_path(self.path)).as_posix()

    def notes(self) -> list[str]:
        """Folders that hold no class; files with other endings and in deeper folders: no rows."""
        root, notes = self.root, super().notes()
        if others := other_files(self):
            counts = _counts(file.suffix.lower() or "none" for file in others)
            what = "files with other endings than those of images"
            notes.append(f"{root}: {what} are not read ({counts})")
        if deeper := deeper_files(self):
            counts = _counts(file.relative_to(root).parent.as_posix() for file in deeper)
            notes.append(f"{root}: images in deeper folders are not read ({counts})")
        return notes


def _counts(names: Iterable[str]) -> str:
    """How often each name occurs, the most frequent first."""
    counts = Counter(names)
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(_LISTED))
    return listed + (", ..." if len(counts) > _LISTED else "")
