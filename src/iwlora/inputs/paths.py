"""Paths that a user named: where they lead, and that they stay inside their folder."""

from __future__ import annotations

import os
from pathlib import Path

from iwlora.errors import IwloraError


def settled(path: str | os.PathLike[str]) -> Path:
    """The path without ``..``, which may lead elsewhere once a folder before it is made.

    >>> settled("/no/such/../place")
    PosixPath('/no/place')
    """
    target = Path(path)
    return target.resolve() if ".." in target.parts else target


def check_links(folder: Path) -> None:
    """Raise ``IwloraError`` for a symbolic link below ``folder`` that leads out of it.

    What is written to or copied from the folder through one would be another's.
    """
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            end = Path(os.path.realpath(path))
            if path.is_symlink() and not end.is_relative_to(root):
                raise IwloraError(
                    f"{path} is a symbolic link that leads out of {folder}, to {end}; remove it, "
                    "or put what it leads to in its place"
                )
