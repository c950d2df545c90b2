"""Control characters of foreign texts, made visible where they are printed or reported.

A terminal would obey them: move the cursor, change colors, overwrite what stands there. Characters
that change the direction of writing show a text in another order than it is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONTROLS = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, delete, C1
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # line separators, directions
    "\ud800-\udfff]"  # surrogates, which no encoding has
)
_MOVES = re.compile(r"\r|(\x1b\[A)+\Z")  # a progress bar begins a line, or goes up some


def visible(text: str) -> str:
    r"""The text with its control characters written like ``\u001b``, but for tabs and line ends.

    >>> print(visible("a\x1b[2Jb"))
    a\u001b[2Jb
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


class VisibleStream:
    """A stream that writes :func:`visible` texts; the rest is that of ``stream``.

    What progress bars write to move the cursor is kept: a carriage return at the beginning, and
    lines up if nothing else is written.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text; the number of its characters."""
        moves = _MOVES.match(text)
        start = moves.end() if moves else 0
        self.stream.write(text[:start] + visible(text[start:]))
        return len(text)

    def writelines(self, texts: Any) -> None:
        """Write texts."""
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unfiltered(stream: Any) -> Any:
    """The stream below a :class:`VisibleStream`, for what draws with control characters."""
    return stream.stream if isinstance(stream, VisibleStream) else stream


@contextmanager
def visible_output() -> Iterator[None]:
    """Print visible texts only, on standard output and standard error, until the block ends."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (VisibleStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
