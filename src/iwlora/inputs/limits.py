"""Limits on numbers in settings, and on the time and memory of patterns, templates and tables."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

from pydantic import Field

from iwlora.errors import IwloraError, short_repr

LARGEST_COUNT = 2**31 - 1
"""Of rows, tokens, steps or units: more than a memory holds, and fewer than integers do."""

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT, strict=True)]
LARGEST_SEED = 2**32 - 1
"""The largest that NumPy's generators take."""

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False)]

PATTERN_SECONDS = 2.0
"""For a regular expression on all names of a model, and for a template on one chat."""

SMALL_TABLE = 2**28
MOST_GROWTH = 50
"""A table may have as many bytes as ``SMALL_TABLE``, or so many times the bytes of its file."""


class LimitExceeded(IwloraError):
    """Something takes more time or memory than it may."""


class _TimeIsUp(BaseException):
    """Passes through what handles ``Exception``."""


@contextmanager
def time_limit(what: str, seconds: float | None = None) -> Iterator[None]:
    """Raise ``LimitExceeded`` when the block has computed for so long.

    It counts the processor's time, also that of the kernel (which fills the memory of a growing
    text). Python's own code and its regular expressions can be stopped; code of a library that
    never returns to Python cannot. There is no limit on Windows, nor in another than the main
    thread, where Python delivers no signals.

    Args:
        what: The subject of the error's sentence.
        seconds: The limit; ``PATTERN_SECONDS`` if None.
    """
    seconds = PATTERN_SECONDS if seconds is None else seconds
    if not hasattr(signal, "setitimer") or not _in_main_thread():
        yield
        return
    is_inside = True

    def ring(_number: int, _frame: FrameType | None) -> None:
        if is_inside:
            raise _TimeIsUp

    before = signal.signal(signal.SIGPROF, ring)
    # Again every tenth of a second, if something has swallowed the first one.
    outer, interval = signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    try:
        try:
            yield
        finally:
            is_inside = False
    except _TimeIsUp:
        raise LimitExceeded(f"{what} takes more than {seconds:g} seconds; it was stopped") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, outer, interval)
        signal.signal(signal.SIGPROF, before or signal.SIG_DFL)


@contextmanager
def memory_limit(what: str, size: int) -> Iterator[None]:
    """Raise ``LimitExceeded`` when the process needs so many bytes more in the block.

    Files that are mapped into memory do not count. Only Linux says what a process uses; elsewhere
    there is no limit.

    Args:
        what: The subject of the error's sentence.
        size: The limit in bytes.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # of data
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = pages * resource.getpagesize() + size
    limits = [limit for limit in (wanted, before, most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), most))
    try:
        yield
    except MemoryError:
        raise LimitExceeded(
            f"{what} takes more than {size / 2**30:g} GiB of memory; it was stopped"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def check_growth(path: str, unfolded: int, size: int) -> None:
    """Raise ``IwloraError`` for a table that takes much more memory than its file has bytes.

    Args:
        path: The file or folder.
        unfolded: Bytes in memory.
        size: Bytes on the disk.
    """
    most = max(SMALL_TABLE, MOST_GROWTH * size)
    if unfolded > most:
        raise IwloraError(
            f"{path} has {size / 1e6:,.1f} MB and unfolds into {unfolded / 1e6:,.0f} MB or more; "
            f"at most {most / 1e6:,.0f} MB are read of such a file; write it as several files, or "
            "as JSON Lines"
        )


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression; raises ``IwloraError`` for a text that is none.

    >>> compile_pattern("*")
    Traceback (most recent call last):
    iwlora.errors.IwloraError: '*' is no regular expression: nothing to repeat at position 0
    """
    shown = short_repr(pattern)
    try:
        with time_limit(f"reading the regular expression {shown}"):
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise IwloraError(f"{shown} is no regular expression: {error}") from None


def full_matches(pattern: str, texts: Iterable[str]) -> set[str]:
    """The texts that a regular expression matches as a whole.

    Raises ``LimitExceeded`` for one that takes too long.

    >>> sorted(full_matches("a+", ["a", "aa", "ab"]))
    ['a', 'aa']
    """
    compiled = compile_pattern(pattern)
    with time_limit(f"matching the regular expression {short_repr(pattern)}"):
        return {text for text in texts if compiled.fullmatch(text)}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
