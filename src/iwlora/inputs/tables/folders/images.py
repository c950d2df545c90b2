"""Folders of image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iwlora.inputs.images import ENDINGS
from iwlora.inputs.places import user_path
from iwlora.inputs.tables.folders.layout import FileFolder
from iwlora.inputs.tables.reading import Problems


@dataclass
class ImageFolder(FileFolder):
    """The image files of a folder, which are not opened: a row has the path in the folder."""

    endings: ClassVar[tuple[str, ...]] = ENDINGS
    content: ClassVar[str] = "image"

    def cell(self, file: Path, problems: Problems, number: int) -> str:
        """The path of a file in the folder."""
        return file.relative_to(user_path(self.path)).as_posix()
