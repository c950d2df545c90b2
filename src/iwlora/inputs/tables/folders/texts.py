"""Folders of text files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from iwlora.errors import IwloraError, is_of_system
from iwlora.inputs.encoding import encoding_of
from iwlora.inputs.lines import read_chunks
from iwlora.inputs.places import MOST_BYTES
from iwlora.inputs.tables.folders.layout import FileFolder
from iwlora.inputs.tables.reading import Problems

TEXT_ENDINGS = (".txt", ".txt.gz")


@dataclass
class TextFolder(FileFolder):
    """The text files of a folder."""

    endings: ClassVar[tuple[str, ...]] = TEXT_ENDINGS
    content: ClassVar[str] = "text"

    def cell(self, file: Path, problems: Problems, number: int) -> str | None:
        """The text in a file."""
        try:
            return self._text(file)
        except IwloraError as error:
            if is_of_system(error):  # else it would be left out as a bad row
                raise
            problems.append((number, str(error)))
            return None

    def _text(self, file: Path) -> str:
        text, most = "", MOST_BYTES["line"]
        for part in read_chunks(file, self.reading.encoding or encoding_of(str(file))):
            text += part
            if len(text) > most:
                raise IwloraError(
                    f"{file} is larger than {most / 2**20:g} MiB, the most of one text"
                )
        return text.removeprefix("\ufeff").replace("\r\n", "\n")
