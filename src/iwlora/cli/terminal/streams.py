"""Standard output and standard error, on which a failure to print does not end the work.

A reader that goes away (``| head``), a full disk behind ``>`` or a closed descriptor must not stop
a training. What cannot be printed is dropped, and the error is kept for the exit code.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LastingOutput(io.RawIOBase):
    """Bytes for another stream, which keeps the first error of a write and drops what follows.

    Args:
        raw: The stream.
        error: Why nothing can be written; None if that is not known yet.
    """

    def __init__(self, raw: Any, error: OSError | None = None) -> None:
        self._raw, self.error = raw, error

    def write(self, data: Any) -> int:
        """Write, or drop the data; the number of bytes written or dropped."""
        if self.error is None:
            try:
                return int(self._raw.write(data))
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._raw.isatty())


@contextmanager
def lasting_streams() -> Iterator[LastingOutput | None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that never raise, until the block ends.

    A character that the terminal's encoding lacks is written like ``\\u2588``. Streams that the
    caller has put in their place stay.

    Yields:
        What is below standard output, and knows whether all was printed; None if that stays.
    """
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    closed = _occupy_closed_descriptors()
    output = None
    if before[0] in (None, sys.__stdout__):
        output = _below(before[0], 1, closed)
        sys.stdout = _text(output, before[0], output.isatty())
    if before[1] in (None, sys.__stderr__):
        sys.stderr = _text(_below(before[1], 2, closed), before[1], True)
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _below(stream: Any, number: int, closed: list[int]) -> LastingOutput:
    if stream is None:
        raw = io.FileIO(number, "w", closefd=False)
        return LastingOutput(raw, OSError("it is closed") if number in closed else None)
    stream.flush()
    return LastingOutput(getattr(stream.buffer, "raw", stream.buffer))


def _text(output: LastingOutput, before: Any, by_line: bool) -> io.TextIOWrapper:
    """A text stream in the encoding of the one before."""
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=by_line,
    )


def _occupy_closed_descriptors() -> list[int]:
    """Open the null device where a descriptor of 0, 1 and 2 is closed; returns which ones were.

    Else the next file that is opened would get the number, and what is printed.
    """
    closed = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))  # the lowest that is free
    return closed
