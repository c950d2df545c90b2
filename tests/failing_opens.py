"""Work to which the system once refuses a file or a folder, at each one that is opened."""

from __future__ import annotations

import builtins
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError

RAISES = "raises"


def ends_with_each_open_refused(work: Callable[[], Any], root: Path) -> list[Any]:
    """What the work gives, or RAISES, with the first open below a folder refused, with the second
    one, and so on."""
    ends: list[Any] = []
    for number in itertools.count(1):
        with pytest.MonkeyPatch.context() as patch, _refused(number, root, patch) as opened:
            try:
                ends.append(work())
            except (OSError, IwloraError) as error:
                if "Permission denied" not in str(error):
                    raise
                ends.append(RAISES)
        if len(opened) < number:
            return ends[:-1]
    raise AssertionError("unreachable")


@contextmanager
def _refused(number: int, root: Path, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuses the open of this number, among those that Python makes below a folder."""
    opened: list[str] = []

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def open_or_refuse(path: Any = ".", *arguments: Any, **options: Any) -> Any:
            if isinstance(path, (str, Path)) and str(path).startswith(str(root)):
                opened.append(str(path))
                if len(opened) == number:
                    raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return open_or_refuse

    for module, name in ((builtins, "open"), (io, "open"), (os, "listdir"), (os, "scandir")):
        patch.setattr(module, name, refusing(getattr(module, name)))
    yield opened
