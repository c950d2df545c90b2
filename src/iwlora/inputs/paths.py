"""Paths that a user gives: where they lead, and that what is inside a folder stays inside."""

from __future__ import annotations

import os
from pathlib import Path

from iwlora.errors import IwloraError


def normalize_path(path: str | os.PathLike[str]) -> Path:
    """The path without ``..``, which could lead elsewhere once a missing folder is made.

    >>> normalize_path("/no/such/../place")
    PosixPath('/no/place')
    """
    target = Path(path)
    return target.resolve() if ".." in target.parts else target


def check_links(folder: Path) -> None:
    """Raise ``IwloraError`` for a symbolic link below ``folder`` that leads out of it.

    Writing to such a link, or copying from it, would touch files of somebody else.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            target = Path(os.path.realpath(path))
            if path.is_symlink() and not target.is_relative_to(root):
                raise IwloraError(
                    f"{path} is a symbolic link that leads out of {folder}, to {target}; remove "
                    "it, or replace it by a copy of what it leads to"
                )
