"""Checks of output paths before any work starts."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.results import layout


def check_writable(path: str | os.PathLike[str], option: str) -> None:
    """Raise ``IwloraError`` if the file of an option cannot be written.

    Missing parent folders are made.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise IwloraError(f"{option} {path} cannot be written: {error.strerror}") from None


def check_output(path: str | os.PathLike[str], option: str) -> None:
    """Raise ``IwloraError`` for a file that a run or a comparison has written, or may still write.

    A new file of another name may lie in such a folder.
    """
    target = Path(path).resolve()
    for folder in (target, *target.parents):
        marks = (layout.RESULT, layout.SOURCES, layout.LOCK)
        inside = target.relative_to(folder).parts[:1]
        if any((folder / name).is_file() for name in marks) and (
            not inside or inside[0] in layout.OWN_NAMES
        ):
            raise IwloraError(
                f"{option} {path} belongs to the results in {folder}; choose another path"
            )
