"""Folders of image files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iwlora.inputs.images import ENDINGS
from iwlora.inputs.places import user_path
from iwlora.inputs.tables.folders.layout import FileFolder, other_files
from iwlora.inputs.tables.reading import Problems

_LISTED = 5  # endings in a note


@dataclass
class ImageFolder(FileFolder):
    """The image files of a folder, which are not opened: a row has the path in the folder."""

    endings: ClassVar[tuple[str, ...]] = ENDINGS
    content: ClassVar[str] = "image"

    def cell(self, file: Path, problems: Problems, number: int) -> str:
        """The path of a file in the folder."""
        return file.relative_to(user_path(self.path)).as_posix()

    def notes(self) -> list[str]:
        """Folders that hold no class, and files with other endings, which are no rows."""
        endings = Counter(file.suffix.lower() or "none" for file in other_files(self))
        if not endings:
            return super().notes()
        counts = ", ".join(f"{name} {count:,}" for name, count in endings.most_common(_LISTED))
        counts += ", ..." if len(endings) > _LISTED else ""
        skipped = f"files with other endings than those of images are not read ({counts})"
        return [*super().notes(), f"{self.root}: {skipped}"]
