"""What an exported folder says of itself: the run's inputs, and a digest of each file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from iwlora.inputs.places import files_below
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import Fingerprint
from iwlora.results.formats import Document, FileName


class ExportRecord(Document):
    """``iwlora_export.json`` of an exported adapter or model.

    Args:
        fingerprint: That of the run; None for a run of an older version.
        files: {path in the folder: SHA-256}, without the model card, which may be edited.
    """

    format_name: ClassVar[str] = "export"
    is_sealed: ClassVar[bool] = True

    fingerprint: Fingerprint | None
    files: dict[FileName, str]

    @classmethod
    def of(cls, folder: Path, fingerprint: Fingerprint | None) -> ExportRecord:
        """The record of the files as they are."""
        digests = {
            path.relative_to(folder).as_posix(): file_digest(path) for path in files_below(folder)
        }
        for name in (layout.EXPORT, layout.CARD):
            digests.pop(name, None)
        return cls(fingerprint=fingerprint, files=digests)
